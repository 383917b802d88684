/** The demo page as a visitor uses it, at the sizes of a desk and of a phone. */

import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { clip } from './clip.js';
import { PATIENCE_MS, startBrowser, startGateway } from './harness.js';
import { measure } from './measure.js';

const EFFECTS = [
  'background_blur', 'background_replace', 'face_detection', 'style_transfer', 'cartoon', 'edges', 'grayscale', 'sepia', 'invert', 'mirror',
  'vignette', 'sharpen', 'denoise', 'none',
];
const DESK = { viewport: { width: 1280, height: 800 } };
const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };
const patience = { timeout: PATIENCE_MS };

let gateway, browser, folder;
before(async () => {
  gateway = await startGateway();
  browser = await startBrowser(clip({ width: 640, height: 480, measure }));
  folder = mkdtempSync(join(tmpdir(), 'ooblex-page-'));
});
after(async () => {
  await browser?.close();
  await gateway?.stop();
});

/** Waits until the output shows `count` more pictures. */
async function advances(page, count = 10) {
  await page.waitForFunction(() => document.querySelector('#output').videoWidth > 0, null, patience);
  await page.evaluate(
    (count) =>
      new Promise((resolve) => {
        const video = document.querySelector('#output');
        const next = (left) => (left ? video.requestVideoFrameCallback(() => next(left - 1)) : resolve());
        next(count);
      }),
    count,
  );
}

const live = (page) => page.waitForSelector('#status[data-state=live]', patience);

for (const [name, options] of Object.entries({ desk: DESK, phone: PHONE })) {
  test(`every effect can be chosen and is seen (${name})`, async (t) => {
    const { page, errors, requests } = await browser.page(new URL('?autostart', gateway.url).href, options);
    await live(page);
    await advances(page);
    const id = await page.evaluate(() => window.ooblex.session.id);
    for (const effect of EFFECTS) {
      await page.locator(`input[name=effect][value=${effect}]`).locator('..').click();
      await page.waitForFunction((effect) => window.ooblex.session.effect === effect, effect, patience);
      await advances(page);
      assert.equal(await page.locator('#status').getAttribute('data-state'), 'live');
      assert.equal(await page.locator('#notice').isVisible(), false, await page.locator('#notice').textContent());
      const shape = await page.evaluate(() => ['source', 'output'].map((id) => document.getElementById(id)).map(({ videoWidth, videoHeight }) => `${videoWidth}x${videoHeight}`));
      assert.deepEqual(shape, ['640x480', '640x480']);
      // The figures of the new effect, which come once a second.
      await page.waitForFunction(() => document.querySelectorAll('#figures dd').length > 0, null, patience);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(wide <= 0, `the page is ${wide} px too wide`);
      await page.screenshot({ path: join(folder, `${name}-${effect}.png`), fullPage: name === 'phone' });
    }
    assert.equal(await page.evaluate(() => window.ooblex.session.id), id, 'no reconnect');
    const ack = await page.evaluate(() => window.changeEffect('background_blur', { strength: 0.9 }));
    assert.equal(ack.params.strength, 0.9);
    await page.locator('#stop').click();
    await page.waitForSelector('#status[data-state=idle]', patience);
    assert.deepEqual(requests.filter((url) => new URL(url).origin !== new URL(gateway.url).origin && !url.startsWith('blob:')), [], 'requests to other hosts');
    assert.deepEqual(errors, [], 'the console stays empty');
    t.diagnostic(`pictures of the page: ${folder}`);
    await page.context().close();
  });
}

test('the codec in the address is the codec in the call', async () => {
  const { page } = await browser.page(new URL('?autostart&codec=h264&effect=face_detection', gateway.url).href, DESK);
  await live(page);
  await advances(page);
  // The figures of a session come once a second.
  await page.waitForFunction(() => /H\.?264/i.test(document.querySelector('#figures').innerText), null, patience);
  const { sessions } = await (await fetch(new URL('api/sessions', gateway.url))).json();
  const about = sessions.find(({ effect }) => effect === 'face_detection');
  assert.equal(about?.stats?.codec, 'h264', JSON.stringify(sessions));
  await page.context().close();
});

test('a visitor who leaves the page leaves no session behind', async () => {
  const { page } = await browser.page(new URL('?autostart', gateway.url).href, DESK);
  await live(page);
  const id = await page.evaluate(() => window.ooblex.session.id);
  await page.goto('about:blank');
  const deadline = Date.now() + PATIENCE_MS;
  const there = async () => (await fetch(new URL(`api/sessions/${id}`, gateway.url))).status !== 404;
  while (await there()) {
    assert.ok(Date.now() < deadline, 'the session is still there');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await page.context().close();
});

test('a gateway that stops in mid-call is told in words, and the page comes back when it does', async () => {
  const own = await startGateway();
  const { page } = await browser.page(new URL('?autostart', own.url).href, DESK);
  try {
    await live(page);
    await advances(page);
    await own.stop();
    await page.waitForSelector('#notice:not([hidden])', patience);
    const text = await page.locator('#notice').innerText();
    assert.match(text, /session has ended|gateway|No media/i);
    assert.equal(await page.locator('#status').getAttribute('data-state'), 'failed');
    await page.locator('#start').click();
    await page.waitForFunction(() => /does not answer/i.test(document.querySelector('#notice').innerText), null, patience);
    await page.screenshot({ path: join(folder, 'gateway-stopped.png') });
  } finally {
    await own.stop();
    await page.context().close();
  }
});

test('a gateway that is killed in mid-call is told in words as well', async () => {
  const own = await startGateway();
  const { page } = await browser.page(new URL('?autostart', own.url).href, DESK);
  try {
    await live(page);
    await advances(page);
    await own.stop('SIGKILL');
    await page.waitForSelector('#notice:not([hidden])', patience);
    assert.ok((await page.locator('#notice-text').innerText()).length > 20);
    assert.equal(await page.locator('#status').getAttribute('data-state'), 'failed');
  } finally {
    await page.context().close();
  }
});
