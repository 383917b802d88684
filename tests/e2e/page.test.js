/** Tests of the demo page as visitors use it, at the sizes of a desktop and of a phone. */

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';

import { clip } from './clip.js';
import { ELSEWHERE, PATIENCE_MS, startBrowser, startGateway } from './harness.js';
import { measure } from './measure.js';

const EFFECTS = [
  'background_blur', 'background_replace', 'face_anonymize', 'face_mesh', 'face_detection', 'style_transfer', 'cartoon', 'edges', 'grayscale',
  'sepia', 'invert', 'mirror',
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
// The session of a test that has failed would slow down those after it.
afterEach(() => browser?.leave());
after(async () => {
  await browser?.close();
  await gateway?.stop();
});

/** Waits until the output shows `count` more pictures. */
async function advances(page, count = 10) {
  await page.evaluate(() => {
    const video = document.querySelector('#output');
    const shown = (window.shown = { pictures: 0 });
    const next = () => video.requestVideoFrameCallback(() => ++shown.pictures && shown === window.shown && next());
    next();
  });
  await page.waitForFunction((count) => window.shown.pictures >= count, count, patience);
}

const live = (page) => page.waitForSelector('#status[data-state=live]', patience);

/** Opens the page with a live session that shows pictures. */
async function openLive(options = DESK, query = '?autostart', url = gateway.url) {
  const opened = await browser.page(new URL(query, url).href, options);
  await live(opened.page);
  await advances(opened.page);
  return opened;
}

for (const [name, options] of Object.entries({ desk: DESK, phone: PHONE })) {
  test(`every effect can be chosen and is seen (${name})`, async (t) => {
    const { page, errors, requests } = await openLive(options);
    const id = await page.evaluate(() => window.ooblex.session.id);
    const { effects } = await (await fetch(new URL('api/effects', gateway.url))).json();
    const chosen = effects.filter((effect) => EFFECTS.includes(effect.name));
    assert.equal(chosen.length, EFFECTS.length);
    assert.equal(await page.getByRole('radio').count(), effects.length, 'a tile for each effect');
    for (const { name: effect, title } of chosen) {
      await page.getByRole('radio', { name: title, exact: true }).locator('..').click();
      await page.waitForFunction((effect) => window.ooblex.session.effect === effect, effect, patience);
      await advances(page);
      assert.equal(await page.locator('#status').getAttribute('data-state'), 'live');
      assert.equal(await page.locator('#notice').isVisible(), false, await page.locator('#notice').textContent());
      // A busy browser sends fewer pixels of the same shape.
      const [source, output] = await page.evaluate(() => ['source', 'output'].map((id) => document.getElementById(id)).map(({ videoWidth, videoHeight }) => ({ videoWidth, videoHeight })));
      assert.deepEqual(source, { videoWidth: 640, videoHeight: 480 });
      assert.ok(output.videoWidth <= 640 && output.videoWidth * 480 === output.videoHeight * 640, `${output.videoWidth}x${output.videoHeight}`);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(wide <= 0, `the page is ${wide} px too wide`);
      await page.screenshot({ path: join(folder, `${name}-${effect}.png`), fullPage: name === 'phone' });
    }
    assert.equal(await page.evaluate(() => window.ooblex.session.id), id, 'no reconnect');
    const ack = await page.evaluate(() => window.changeEffect('background_blur', { strength: 0.9 }));
    assert.equal(ack.params.strength, 0.9);
    await page.getByRole('button', { name: 'Stop' }).click();
    await page.waitForSelector('#status[data-state=idle]', patience);
    assert.deepEqual(requests.filter((url) => new URL(url).origin !== new URL(gateway.url).origin && !url.startsWith('blob:')), [], 'requests to other hosts');
    assert.deepEqual(errors, [], 'the console stays empty');
    t.diagnostic(`pictures of the page: ${folder}`);
  });
}

test('tiles show what effects do, and several effects go in a row', async () => {
  const { page, errors } = await openLive(DESK, '?autostart&effect=grayscale');
  await page.waitForFunction(() => {
    const pictures = [...document.querySelectorAll('.tile img')];
    return pictures.length && pictures.every(({ loading, complete, naturalWidth }) => loading === 'lazy' && (!complete || naturalWidth > 0)) && pictures.some(({ naturalWidth }) => naturalWidth > 0);
  }, null, patience);
  await page.getByRole('button', { name: 'Combine' }).click();
  const choose = (title) => page.getByRole('checkbox', { name: title, exact: true }).locator('..').click();
  const becomes = (effect) => page.waitForFunction((effect) => window.ooblex.session.effect === effect, effect, patience);
  await choose('Mirror');
  await becomes('grayscale+mirror');
  await choose('Vignette');
  await becomes('grayscale+mirror+vignette');
  await advances(page);
  await choose('Grayscale');
  await becomes('mirror+vignette');
  // This effect paints from the camera's picture, so it must come first; the page explains that,
  // and nothing changes.
  await choose('Style transfer');
  await page.waitForFunction(() => /style_transfer|Style transfer/.test(document.querySelector('#notice').textContent), null, patience);
  assert.equal(await page.evaluate(() => window.ooblex.session.effect), 'mirror+vignette');
  await page.getByRole('button', { name: 'Combine' }).click();
  await becomes('mirror');
  await advances(page);
  assert.deepEqual(errors, []);
});

test('it can be used with the keyboard alone: effect, settings, before and after', async () => {
  const { page, errors } = await openLive(DESK, '?autostart&effect=background_blur');
  await page.getByRole('radio', { name: 'Background blur', exact: true }).focus();
  const first = await page.evaluate(() => document.activeElement.value);
  await page.keyboard.press('ArrowRight');
  await page.waitForFunction((first) => window.ooblex.session.effect !== first && window.ooblex.session.effect === document.activeElement.value, first, patience);
  await page.keyboard.press('ArrowLeft');
  await page.waitForFunction((first) => window.ooblex.session.effect === first, first, patience);

  const strength = page.getByRole('slider', { name: 'Strength' });
  await strength.focus();
  await page.keyboard.press('End');
  await page.waitForFunction(() => window.ooblex.session.params.strength === 1, null, patience);
  await page.keyboard.press('Home');
  await page.waitForFunction(() => window.ooblex.session.params.strength === 0, null, patience);

  const divider = page.getByRole('slider', { name: /Before and after/ });
  await divider.focus();
  await page.keyboard.press('Home');
  assert.equal(await divider.getAttribute('aria-valuetext'), '0 % before, 100 % with the effect');
  await page.keyboard.press('End');
  const covered = await page.evaluate(() => [document.querySelector('#before'), document.querySelector('#screen')].map((part) => getComputedStyle(part)).map((style) => [style.clipPath, style.getPropertyValue('--split')]));
  assert.deepEqual([covered[0][0], covered[1][1]], ['inset(0px 0% 0px 0px)', '100%']);
  const compare = page.getByRole('button', { name: 'Before and after' });
  await compare.focus();
  await page.keyboard.press('Enter');
  assert.equal(await compare.getAttribute('aria-pressed'), 'false');
  assert.equal(await divider.isVisible(), false);

  const nameless = await page.evaluate(() =>
    [...document.querySelectorAll('button, input, select, video, canvas')]
      .filter((part) => part.checkVisibility() && part.closest('[aria-hidden=true]') === null)
      .filter((part) => !(part.ariaLabel || part.textContent.trim() || part.labels?.length || part.getAttribute('aria-labelledby')))
      .map((part) => part.outerHTML),
  );
  assert.deepEqual(nameless, [], 'everything has a name');
  assert.deepEqual(errors, []);
});

test('a picture and a video can be saved', async () => {
  const { page, errors } = await openLive();
  const saved = async (button) => {
    const [download] = await Promise.all([page.waitForEvent('download', patience), button.click()]);
    return { name: download.suggestedFilename(), bytes: readFileSync(await download.path()) };
  };
  const isWhole = () => document.querySelector('#output').videoWidth === 640;
  await page.waitForFunction(isWhole, null, patience);
  const picture = await saved(page.getByRole('button', { name: 'Save a picture' }));
  assert.match(picture.name, /^ooblex-.*\.png$/);
  assert.deepEqual([picture.bytes.readUInt32BE(16), picture.bytes.readUInt32BE(20)], [640, 480], 'of the size of the video');
  const record = page.getByRole('button', { name: 'Record to a file' });
  await record.click();
  assert.equal(await record.getAttribute('aria-pressed'), 'true');
  await advances(page, 40);
  const film = await saved(record);
  assert.match(film.name, /\.(mp4|webm)$/);
  assert.ok(film.bytes.length > 10_000, `${film.bytes.length} bytes`);
  await page.evaluate((data) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    window.film = Object.assign(document.createElement('video'), { src: URL.createObjectURL(new Blob([bytes])), muted: true });
    window.film.play().catch(() => {});
  }, film.bytes.toString('base64'));
  await page.waitForFunction(() => window.film.error || (window.film.currentTime > 0 && window.film.readyState >= 2), null, patience);
  const played = await page.evaluate(() => [window.film.error?.message, window.film.videoWidth / window.film.videoHeight]);
  assert.deepEqual(played, [undefined, 640 / 480], 'the browser plays it');
  assert.deepEqual(errors, []);
});

test('another resolution, and a file, are sent in the same connection', async () => {
  const { page, errors } = await openLive(DESK, '?autostart&effect=none');
  const id = await page.evaluate(() => window.ooblex.session.id);
  const size = (width, height) => page.waitForFunction(([width, height]) => ['source', 'output'].every((id) => document.getElementById(id).videoWidth === width && document.getElementById(id).videoHeight === height), [width, height], patience);
  await page.getByLabel('Resolution', { exact: true }).selectOption('360p');
  await size(640, 360);
  // The file is a recording made by the page.
  await page.getByRole('button', { name: 'Record to a file' }).click();
  await advances(page, 20);
  const [download] = await Promise.all([page.waitForEvent('download', patience), page.getByRole('button', { name: 'Record to a file' }).click()]);
  await page.getByLabel('Resolution', { exact: true }).selectOption('480p');
  await size(640, 480);
  await page.locator('#file').setInputFiles({ name: download.suggestedFilename(), mimeType: 'video/webm', buffer: readFileSync(await download.path()) });
  await size(640, 360);
  assert.equal(await page.getByRole('button', { name: 'File', exact: true }).getAttribute('aria-pressed'), 'true');
  await page.getByRole('button', { name: 'Camera', exact: true }).click();
  await size(640, 480);
  await page.locator('#file').setInputFiles({ name: 'letter.txt', mimeType: 'text/plain', buffer: Buffer.from('no film') });
  await page.waitForFunction(() => /letter\.txt/.test(document.querySelector('#notice').innerText), null, patience);
  assert.equal(await page.evaluate(() => window.ooblex.session.id), id);
  await advances(page);
  assert.deepEqual(errors, []);
});

test('the page says in words that the camera has stopped, until it is back', async () => {
  const { page } = await openLive(DESK, '?autostart&effect=none');
  const hint = (words) => page.waitForFunction((words) => document.querySelector('#hint').textContent.includes(words), words, patience);
  await page.evaluate(() => window.ooblex.session.input.getVideoTracks()[0].stop());
  await hint('The camera sends no picture');
  await page.waitForFunction(() => /sends no picture/.test(document.querySelector('#verdict-title').textContent), null, patience);
  assert.equal(await page.locator('#status').getAttribute('data-state'), 'live');
  await page.getByRole('button', { name: 'Camera', exact: true }).click();
  await page.waitForFunction(() => !document.querySelector('#hint').textContent, null, patience);
  await advances(page);
});

test('it says how it goes, in words and figures, and in the colour scheme of the user', async () => {
  const { page } = await openLive({ ...DESK, colorScheme: 'light' });
  await page.waitForFunction(() => document.querySelector('#verdict').dataset.part !== 'none', null, patience);
  assert.ok((await page.locator('#verdict').innerText()).length > 20);
  await page.waitForFunction(() => ['fps', 'latency'].every((name) => /\d/.test(document.querySelector(`#plot-${name}`).ariaLabel)), null, patience);
  // A line needs two samples, one per second.
  const inked = () => ['fps', 'latency'].map((name) => document.querySelector(`#plot-${name}`)).every((canvas) => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((value, index) => index % 4 === 3 && value > 200));
  await page.waitForFunction(inked, null, patience);
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  const dark = page.getByRole('button', { name: 'Dark colours' });
  assert.equal(await dark.getAttribute('aria-pressed'), 'false');
  await dark.click();
  assert.equal(await dark.getAttribute('aria-pressed'), 'true');
  assert.notEqual(await ground(), light);
  await page.reload();
  assert.notEqual(await ground(), light, 'it is remembered');
});

test('a page that is not secure says exactly that, and offers no camera', async () => {
  const address = new URL(gateway.url);
  address.hostname = ELSEWHERE;
  const { page } = await browser.page(address.href, DESK);
  await page.waitForSelector('#notice:not([hidden])', patience);
  const said = await page.getByRole('alert').innerText();
  assert.match(said, /cannot use the camera/);
  assert.ok(said.includes(ELSEWHERE) && said.includes('https') && said.includes(`http://localhost:${address.port}/`), said);
  assert.equal(await page.getByRole('button', { name: 'Start camera' }).isDisabled(), true);
  assert.ok((await page.getByRole('radio').count()) > 0, 'the effects are shown all the same');
});

test('the codec in the address is the codec in the call', async () => {
  const { page } = await browser.page(new URL('?autostart&codec=h264&effect=face_detection', gateway.url).href, DESK);
  await live(page);
  await advances(page);
  // The statistics of a session are updated once per second.
  await page.waitForFunction(() => /H\.?264/i.test(document.querySelector('#figures').textContent), null, patience);
  const { sessions } = await (await fetch(new URL('api/sessions', gateway.url))).json();
  const about = sessions.find(({ effect }) => effect === 'face_detection');
  assert.equal(about?.stats?.codec, 'h264', JSON.stringify(sessions));
});

test('what an effect finds is told, and no more when another one has taken its place', async () => {
  const { page } = await openLive(DESK, '?autostart&effect=face_detection');
  await page.waitForFunction(() => document.querySelector('#chip-found').textContent === '1 face', null, patience);
  const told = await page.evaluate(async () => {
    await window.changeEffect('sepia');
    return document.querySelector('#chip-found').textContent;
  });
  assert.equal(told, '');
});

test('a user who leaves the page leaves no session behind', async () => {
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
});

test('a gateway that is killed and started again in mid-call is waited for, and the picture comes back', async () => {
  let own = await startGateway();
  const { port } = new URL(own.url);
  const { page } = await openLive(DESK, '?autostart', own.url);
  try {
    await own.stop('SIGKILL');
    await page.waitForSelector('#status[data-state=reconnecting]', patience);
    assert.match(await page.locator('#hint').innerText(), /connection was lost.*last picture is held/i);
    await page.screenshot({ path: join(folder, 'gateway-killed.png') });
    own = await startGateway(['--listen', `127.0.0.1:${port}`]);
    await live(page);
    await advances(page);
    assert.equal(await page.locator('#notice').isVisible(), false);
  } finally {
    await own.stop();
  }
});

test('a session that is ended from outside, and a gateway that is gone, are told in words', async () => {
  const own = await startGateway();
  const { page } = await openLive(DESK, '?autostart', own.url);
  try {
    const id = await page.evaluate(() => window.ooblex.session.id);
    await fetch(new URL(`api/sessions/${id}`, own.url), { method: 'DELETE' });
    await page.waitForFunction(() => /ended the session/.test(document.querySelector('#notice').innerText), null, patience);
    assert.equal(await page.locator('#status').getAttribute('data-state'), 'failed');
    await own.stop();
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.waitForFunction(() => /does not answer/i.test(document.querySelector('#notice').innerText), null, patience);
  } finally {
    await own.stop();
  }
});
