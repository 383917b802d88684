/**
 * Tests of access with a token or key, and of the notices of page and SDK when somebody else
 * changes or ends a session.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { clip } from './clip.js';
import { BINARY, PATIENCE_MS, openPage, startBrowser, startGateway } from './harness.js';
import { measure } from './measure.js';

const DESK = { viewport: { width: 1280, height: 800 } };
const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };
const patience = { timeout: PATIENCE_MS };

let browser, played, folder;
before(async () => {
  played = clip({ width: 640, height: 480, measure });
  browser = await startBrowser(played);
  folder = mkdtempSync(join(tmpdir(), 'ooblex-access-'));
});
after(async () => {
  await browser?.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Opens the page of a gateway. */
const open = (gateway, query = '?autostart', options = DESK) => browser.page(new URL(query, gateway.url).href, options);

const live = (page) => page.waitForSelector('#status[data-state=live]', patience);

/** Waits until an element's text matches. */
const says = (page, selector, pattern) =>
  page.waitForFunction(([selector, source]) => new RegExp(source).test(document.querySelector(selector)?.innerText), [selector, pattern.source], patience);

/** Calls `use` with a gateway and its page, with a live session with background blur. */
async function withLivePage(options, use) {
  const gateway = await startGateway();
  try {
    const { page, errors } = await open(gateway, '?autostart&effect=background_blur', options);
    await live(page);
    const url = new URL(`api/sessions/${await page.evaluate(() => window.ooblex.session.id)}`, gateway.url);
    const patch = (change) => fetch(url, { method: 'PATCH', headers: { 'content-type': 'application/json' }, body: JSON.stringify(change) });
    await use({ gateway, page, errors, url, patch });
    await page.context().close();
  } finally {
    await gateway.stop();
  }
}

for (const [name, options] of Object.entries({ desk: DESK, phone: PHONE })) {
  test(`an effect that the operator takes off is seen at once, and stays said until it is dismissed (${name})`, () =>
    withLivePage(options, async ({ page, errors, patch }) => {
      await says(page, '#tag-after', /^Background blur$/);
      assert.equal((await patch({ effect: 'none' })).status, 200);
      const urgent = page.locator('#changes .urgent');
      await urgent.waitFor(patience);
      assert.match(await urgent.innerText(), /Background blur was taken off by the operator/);
      assert.equal(await page.locator('#changes').getAttribute('role'), 'status');
      const title = await page.evaluate(() => document.querySelector('#effects :checked').value);
      assert.deepEqual([title, await page.evaluate(() => window.ooblex.session.effect)], ['none', 'none']);
      assert.doesNotMatch(await page.locator('#tag-after').innerText(), /blur/i);
      assert.equal(await page.locator('#parameters input[type=range]').count(), 0, 'nor do the settings show those of the blur');

      await patch({ effect: 'sepia', params: { strength: 0.25 } });
      await says(page, '#changes', /The effect was changed to Sepia by the operator/);
      await page.waitForFunction(() => document.querySelector('#parameter-sepia-strength')?.value === '0.25', null, patience);
      await patch({ params: { strength: 0.75 } });
      await says(page, '#changes', /The settings of Sepia were changed by the operator/);
      await page.waitForFunction(() => document.querySelector('#parameter-sepia-strength')?.value === '0.75', null, patience);
      assert.equal(await page.locator('#changes .change').count(), 2);
      const inView = await urgent.evaluate((notice) => {
        scrollTo(0, document.body.scrollHeight);
        const { top, bottom } = notice.getBoundingClientRect();
        return top >= 0 && bottom <= innerHeight;
      });
      assert.ok(inView, 'it is in view wherever the page is scrolled to');

      // The visitor's own changes cause no notice, and remove only notices that are not urgent.
      await page.evaluate(() => window.changeEffect('background_blur'));
      await says(page, '#tag-after', /^Background blur$/);
      assert.equal(await page.locator('#changes .change').count(), 1);
      await urgent.getByRole('button', { name: /Dismiss/ }).click();
      assert.equal(await page.locator('#changes .change').count(), 0);
      assert.deepEqual(errors, []);
    }));
}

test('a session that the operator ends says so, and does not come back by itself', () =>
  withLivePage(DESK, async ({ page, url }) => {
    await fetch(url, { method: 'DELETE' });
    await says(page, '#notice', /The session was ended by the operator/);
    assert.equal(await page.locator('#status').getAttribute('data-state'), 'failed');
  }));

test('the SDK follows what the gateway says, in order, while both sides change it', async () => {
  const gateway = await startGateway();
  const opened = await openPage(browser, gateway, played);
  try {
    const id = await opened.connect({ effect: 'background_blur' });
    await opened.moreFrames(3);
    const url = new URL(`api/sessions/${id}`, gateway.url);
    await opened.page.evaluate(() => {
      probe.kept.told = [];
      probe.kept.output.on('settings', (change) => probe.kept.told.push(change));
    });
    for (let turn = 0; turn < 10; turn++) {
      const body = JSON.stringify({ effect: turn % 2 ? 'sepia' : 'invert' });
      const [change] = await Promise.all([opened.changeEffect('mirror'), fetch(url, { method: 'PATCH', headers: { 'content-type': 'application/json' }, body })]);
      assert.equal(change.ack.type, 'ack');
      await opened.page.waitForFunction((count) => probe.kept.told.length === count, turn + 1, patience);
      const { effect } = await (await fetch(url)).json();
      await opened.page.waitForFunction((effect) => probe.kept.output.effect === effect, effect, patience);
    }
    const [first] = await opened.page.evaluate(() => probe.kept.told);
    assert.equal(first.by, 'api');
  } finally {
    await opened.page.context().close();
    await gateway.stop();
  }
});

/** Calls `use` with a gateway in the mode `keys`, with one key for each of these roles. */
async function withKeys(roles, use) {
  const made = roles.map((role) => {
    const printed = execFileSync(BINARY, ['token', 'key', '--role', role], { encoding: 'utf8' });
    const toml = printed.slice(printed.indexOf('[[auth.keys]]')).replace(/^name\s*=.*$/m, `name = "${role}"`);
    return { key: /\bobx_\S+/.exec(printed)[0], toml };
  });
  const file = join(folder, `${roles.join('-')}.toml`);
  writeFileSync(file, `[auth]\nmode = "keys"\n\n${made.map(({ toml }) => toml).join('\n')}\n`);
  const gateway = await startGateway(['--config', file]);
  try {
    await use({ gateway, keys: Object.fromEntries(roles.map((role, index) => [role, made[index].key])) });
  } finally {
    await gateway.stop();
  }
}

const dialog = (page) => page.getByRole('dialog', { name: 'This gateway asks for a token' });

/** Fills in the token form. */
async function giveToken(page, token) {
  await dialog(page).waitFor(patience);
  await page.getByLabel('Token or key').fill(token);
  await dialog(page).getByRole('button', { name: 'Connect' }).click();
}

test('the page asks for a key, says when one is wrong, and keeps the right one for this tab', () =>
  withKeys(['publish', 'view'], async ({ gateway, keys }) => {
    const { page } = await open(gateway);
    await dialog(page).waitFor(patience);
    assert.equal(await page.locator('#access-reason').innerText(), '');
    assert.equal(await page.getByLabel('Token or key').getAttribute('type'), 'password');
    await page.getByRole('button', { name: 'Show' }).click();
    assert.equal(await page.getByLabel('Token or key').getAttribute('type'), 'text');

    await giveToken(page, 'obx_wrong');
    await says(page, '#access-reason', /was not accepted/);
    assert.equal(await page.evaluate(() => sessionStorage.getItem('ooblex-token')), null, 'what is refused is forgotten');
    await giveToken(page, keys.publish);
    await live(page);
    await page.reload();
    await live(page);
    assert.equal(await dialog(page).isVisible(), false);

    // A key without the right to publish is valid, so the page does not ask for another one.
    await page.evaluate((key) => sessionStorage.setItem('ooblex-token', key), keys.view);
    await page.reload();
    await says(page, '#notice', /does not allow this/);
    assert.equal(await dialog(page).isVisible(), false);
    await page.context().close();
  }));

test('a link brings a key, which does not stay in the address', () =>
  withKeys(['publish'], async ({ gateway, keys }) => {
    const { page, requests } = await open(gateway, `?autostart#token=${keys.publish}`);
    await live(page);
    assert.doesNotMatch(page.url(), /obx_/);
    assert.deepEqual(requests.filter((url) => url.includes('obx_')), []);
    await page.context().close();
  }));

test('a user who gives no key is left with the page, and can try again', () =>
  withKeys(['publish'], async ({ gateway, keys }) => {
    const { page } = await open(gateway);
    await dialog(page).getByRole('button', { name: 'Cancel' }).click(patience);
    await says(page, '#notice', /A token is needed/);
    await page.getByRole('button', { name: 'Try again' }).click();
    await giveToken(page, keys.publish);
    await live(page);
    await page.context().close();
  }));

test('only the session\'s secret, which the SDK keeps, opens the session in the API', () =>
  withKeys(['publish'], async ({ gateway, keys }) => {
    const opened = await openPage(browser, gateway, played);
    const id = await opened.connect({ effect: 'sepia', token: keys.publish });
    const url = new URL(`api/sessions/${id}`, gateway.url);
    assert.ok([401, 403].includes((await fetch(url)).status), 'the id alone grants nothing');
    const seen = await opened.page.evaluate(async () => {
      const session = probe.kept.output;
      const change = { method: 'PATCH', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ effect: 'invert' }) };
      return [(await session.request()).status, (await session.request('', change)).status, (await (await session.request()).json()).effect];
    });
    assert.deepEqual(seen, [200, 200, 'invert']);
    const refused = await opened.page.evaluate(() => probe.sdk.connect({ source: probe.camera }).catch(({ code, problem }) => ({ code, status: problem.status })));
    assert.deepEqual(refused, { code: 'unauthorized', status: 401 });
    await opened.close();
    await opened.page.context().close();
  }));
