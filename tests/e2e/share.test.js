/**
 * Tests of sharing: a visitor shares the picture of the page, and others follow the link. They see
 * the effect from the first frame on and hear the microphone, and are told what happens.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';

import { clip } from './clip.js';
import { BINARY, PATIENCE_MS, becomes, startBrowser, startGateway } from './harness.js';
import { assertHidden, assertInOrder } from './judge.js';
import { measure } from './measure.js';

const DESK = { viewport: { width: 1280, height: 800 } };
const PHONE = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };
const LYING = { ...PHONE, viewport: { width: 740, height: 360 } };
const FRAMES = 60;
const patience = { timeout: PATIENCE_MS };

let gateway, browser, played, folder;
before(async () => {
  played = clip({ width: 640, height: 480, measure });
  gateway = await startGateway();
  browser = await startBrowser(played);
  folder = mkdtempSync(join(tmpdir(), 'ooblex-share-'));
});
afterEach(() => browser?.leave());
after(async () => {
  await browser?.close();
  await gateway?.stop();
});

/** Opens a page in a context of its own; each of its connections is watched from the first frame on. */
function open(url, options = DESK) {
  const script = `
    probe.layout = ${JSON.stringify(played.layout)};
    probe.connections = 0;
    window.RTCPeerConnection = class extends RTCPeerConnection {
      constructor(...given) {
        super(...given);
        const name = 'connection ' + ++probe.connections;
        probe.keep(name, this);
        this.addEventListener('track', ({ track }) => track.kind === 'video' && probe.watch(name, track));
      }
    };`;
  return browser.page(url, { script, ...options });
}

/** Returns the frames of all connections of a page so far, one list for each. */
const seen = (page) => page.evaluate(() => Object.entries(probe.seen).filter(([name]) => name.startsWith('connection')).map(([, records]) => records));

/** Waits until the page has shown more pictures. */
async function advances(page, count = FRAMES) {
  const frames = async () => (await seen(page)).reduce((sum, records) => sum + records.length, 0);
  const before = await frames();
  for (const deadline = Date.now() + PATIENCE_MS; (await frames()) < before + count; await new Promise((resolve) => setTimeout(resolve, 100))) {
    assert.ok(Date.now() < deadline, `no ${count} more pictures`);
  }
}

/**
 * Asserts that all frames of all connections of a page were blurred, and those of a viewer in order.
 * Chromium's camera repeats its last frame when another connection begins to send it, so a publisher
 * may get one twice.
 */
async function assertBlurred(page, { isViewer = false } = {}) {
  const lists = (await seen(page)).filter((records) => records.length);
  assert.ok(lists.length);
  for (const records of lists) {
    assertHidden(records, played, ['blurred']);
    if (isViewer && records.length >= FRAMES) assertInOrder(records, played);
  }
}

const live = (page) => page.waitForSelector('#status[data-state=live]', patience);
const says = (page, selector, text) => page.waitForFunction(([selector, text]) => document.querySelector(selector)?.checkVisibility() && document.querySelector(selector).textContent.includes(text), [selector, text], patience);

/** Opens the page of a gateway with a live session. */
async function openLive(url = gateway.url, hash = '') {
  const opened = await open(new URL(`?autostart&effect=background_blur${hash}`, url).href);
  await live(opened.page);
  await advances(opened.page, 5);
  return opened;
}

/** Shares the picture of the page. Returns the link. */
async function share(page, { sound = true, name = '' } = {}) {
  await page.getByRole('button', { name: /Share with others/ }).click();
  const dialog = page.getByRole('dialog', { name: 'Let others watch' });
  if (sound) await dialog.getByLabel('With the sound of my microphone').check();
  if (name) {
    await dialog.getByText('Choose the name in the link').click();
    await dialog.getByLabel('Name').fill(name);
  }
  await dialog.getByRole('button', { name: 'Share', exact: true }).click();
  const link = page.getByRole('dialog', { name: 'Others can watch' }).getByLabel('Link');
  await link.waitFor(patience);
  return link.inputValue();
}

const count = (page) => (number) => says(page, '#audience-count', String(number));

test('who follows the link sees the effect, hears the microphone, and is counted; the publisher may reconnect, end and begin again', async () => {
  const { page, errors } = await openLive();
  const link = await share(page);
  assert.match(new URL(link).hash, /^#room=[\w-]{22}$/);
  assert.equal(new URL(link).pathname, '/watch');
  await says(page, '#share-audience', 'Nobody is watching yet.');
  await says(page, '#status', 'Live, shared');

  const first = await open(link, PHONE);
  await live(first.page);
  await advances(first.page);
  await count(first.page)(1);
  const second = await open(link);
  await advances(second.page);
  await Promise.all([count(first.page)(2), count(second.page)(2)]);
  await says(page, '#share-audience', '2 people are watching.');
  assert.equal(await page.evaluate(() => document.querySelector('#share').ariaLabel), 'Shared with others. 2 people are watching.');

  // The browser would not play sound before the visitor has asked for it.
  const isMuted = () => second.page.evaluate(() => document.querySelector('#picture').muted);
  assert.equal(await isMuted(), true);
  await second.page.getByRole('button', { name: 'Turn sound on' }).click();
  assert.equal(await isMuted(), false);
  assert.equal(await second.page.getByRole('button', { name: 'Turn sound on' }).isVisible(), false);
  await becomes(second.page, async () => {
    const report = [...(await probe.kept[`connection ${probe.connections}`].getStats()).values()];
    return report.find(({ type, kind }) => type === 'inbound-rtp' && kind === 'audio')?.totalAudioEnergy > 0;
  });
  await second.page.getByRole('button', { name: 'Sound', exact: true }).click();
  assert.equal(await isMuted(), true);

  await first.page.context().close();
  await count(second.page)(1);
  await says(page, '#share-audience', 'One person is watching.');

  // The connection of the publisher breaks, and the SDK makes another one in the same room.
  const id = await page.evaluate(() => window.ooblex.session.id);
  await page.evaluate(() => probe.kept[`connection ${probe.connections}`].close());
  await page.waitForFunction((id) => window.ooblex.session?.state === 'live' && window.ooblex.session.id !== id, id, patience);
  await advances(second.page);
  await live(second.page);
  await says(page, '#share-audience', 'One person is watching.');

  await page.getByRole('button', { name: 'Stop sharing' }).click();
  await says(second.page, '#cover-title', 'The stream has ended');
  await live(page);
  await says(page, '#status', 'Live');
  assert.equal(await page.evaluate(() => window.ooblex.session.room), null);
  assert.equal(await page.evaluate(() => document.querySelector('#microphone').ariaPressed), 'true', 'the microphone stays on');
  assert.equal(await share(page), link, 'the link stays the same');
  await live(second.page);
  await advances(second.page);

  await assertBlurred(page);
  await assertBlurred(second.page, { isViewer: true });
  // A connection that is closed takes a frame with it that the test has not read.
  assert.deepEqual(errors.filter((text) => !text.includes('A VideoFrame was garbage collected')), []);
  // The SDK asks whether the room is open again, and is told that it is not.
  assert.deepEqual(second.errors.filter((text) => !/\b40[49]\b|A VideoFrame was garbage collected/.test(text)), []);
});

test('a picture that is hidden stays hidden when it is shared', async () => {
  const { page } = await openLive();
  await page.getByRole('button', { name: 'Hide my picture' }).click();
  // A black picture has no number.
  await becomes(page, () => probe.seen['connection 1'].slice(-5).every(({ number }) => number === null));
  const link = await share(page, { sound: false });
  const viewer = await open(link);
  await advances(viewer.page, 30);
  const [records] = await seen(viewer.page);
  assert.ok(records.every(({ number }) => number === null), 'no frame shows the camera');
  await page.getByRole('button', { name: 'Done' }).click();
  await page.getByRole('button', { name: 'Hide my picture' }).click();
  await becomes(viewer.page, () => probe.seen['connection 1'].at(-1).number !== null);
  assert.equal(await viewer.page.getByRole('button', { name: 'Turn sound on' }).isVisible(), false, 'there is no sound');
});

test('a name can be chosen, but not one that is taken', async () => {
  const first = await openLive();
  assert.equal(new URL(await share(first.page, { name: 'studio' })).hash, '#room=studio');
  const second = await openLive();
  await second.page.getByRole('button', { name: /Share with others/ }).click();
  await second.page.getByText('Choose the name in the link').click();
  await second.page.getByLabel('Name').fill('studio');
  await second.page.getByRole('button', { name: 'Share', exact: true }).click();
  await says(second.page, '#share-problem', "another session publishes to the room 'studio'");
  await live(second.page);
  assert.equal(await second.page.evaluate(() => window.ooblex.session.room), null, 'the session goes on as it was');
});

test('the page of a viewer says what is wrong: the link, an empty room, a full one', async () => {
  const broken = await open(new URL('watch', gateway.url).href);
  await says(broken.page, '#cover-title', 'This link is not complete');
  assert.equal(await broken.page.getByRole('button', { name: 'Try again' }).isVisible(), false);
  const early = await open(new URL('watch#room=later', gateway.url).href);
  await says(early.page, '#cover-title', 'Nobody is sending yet');
  const full = { type: 'urn:ooblex:problem:room-full', title: 'The room is full', status: 503, detail: 'The room is full.' };
  await early.page.route('**/whep/**', (route) => route.fulfill({ status: 503, contentType: 'application/problem+json', headers: { 'retry-after': '1' }, body: JSON.stringify(full) }));
  await says(early.page, '#cover-title', 'All places are taken');
  await early.page.unroute('**/whep/**');
  const { page } = await openLive();
  await share(page, { name: 'later', sound: false });
  await live(early.page);
  await advances(early.page, 10);
});

/** Makes a gateway that wants keys, and returns it with a key for each of these roles. */
async function withKeys(roles, use) {
  const made = roles.map((role) => {
    const printed = execFileSync(BINARY, ['token', 'key', '--role', role, '--name', role], { encoding: 'utf8' });
    return { key: printed.split('\n')[0], toml: printed.slice(printed.indexOf('[[auth.keys]]')) };
  });
  const file = join(folder, 'keys.toml');
  writeFileSync(file, `[auth]\nmode = "keys"\n\n${made.map(({ toml }) => toml).join('\n')}\n`);
  const guarded = await startGateway(['--config', file]);
  try {
    await use(guarded, ...made.map(({ key }) => key));
  } finally {
    await guarded.stop();
  }
}

test('where the gateway wants a token, the link has none, and only who has one may watch', () =>
  withKeys(['publish', 'view'], async (guarded, publishing, viewing) => {
    const { page } = await openLive(guarded.url, `#token=${publishing}`);
    const link = await share(page, { sound: false });
    assert.ok(!link.includes('token') && !link.includes(publishing));
    const viewer = await open(link, PHONE);
    const give = async (key) => {
      await viewer.page.getByLabel('Token or key').fill(key);
      await viewer.page.getByRole('button', { name: 'Watch' }).click();
    };
    await viewer.page.getByRole('dialog', { name: 'This gateway asks for a token' }).waitFor(patience);
    await viewer.page.getByRole('button', { name: 'Cancel' }).click();
    await says(viewer.page, '#cover-title', 'You need a token to watch this');
    await viewer.page.getByRole('button', { name: 'Try again' }).click();
    await give(publishing);
    await says(viewer.page, '#cover-title', 'You may not watch this');
    await viewer.page.getByRole('button', { name: 'Use another token' }).click();
    await give(viewing);
    await live(viewer.page);
    await advances(viewer.page, 10);
    const lists = await viewer.page.evaluate(async (token) => {
      const sdk = await import('/sdk/ooblex.js');
      return [await sdk.listRooms({ token }), await sdk.listRooms().catch(({ code }) => code)];
    }, viewing);
    assert.deepEqual(lists, [[{ room: new URLSearchParams(new URL(link).hash.slice(1)).get('room'), active: true, viewers: 1 }], 'unauthorized']);
  }));

for (const [name, options] of Object.entries({ desk: DESK, phone: PHONE, lying: LYING })) {
  for (const colorScheme of ['light', 'dark']) {
    test(`the page of a viewer fits its screen and can be used with the keyboard (${name}, ${colorScheme})`, async (t) => {
      const { page } = await openLive();
      const link = await share(page);
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: join(folder, `share-${colorScheme}.png`) });
      const viewer = await open(link, { ...options, colorScheme });
      await live(viewer.page);
      await viewer.page.getByRole('button', { name: 'Turn sound on' }).waitFor(patience);
      await viewer.page.screenshot({ path: join(folder, `watch-${name}-${colorScheme}.png`) });
      const misplaced = await viewer.page.evaluate(() => {
        const parts = ['#picture', '#status', '#audience', '#unmute', '#sound', '#full'].filter((part) => {
          const { left, top, right, bottom } = document.querySelector(part).getBoundingClientRect();
          return left < -1 || top < -1 || right > innerWidth + 1 || bottom > innerHeight + 1;
        });
        return [...parts, ...(document.documentElement.scrollWidth > innerWidth ? ['the page is too wide'] : [])];
      });
      assert.deepEqual(misplaced, []);
      const nameless = await viewer.page.evaluate(() => [...document.querySelectorAll('button, input, video')].filter((part) => part.checkVisibility() && !(part.ariaLabel || part.textContent.trim())).map((part) => part.outerHTML));
      assert.deepEqual(nameless, []);
      for (let step = 0; step < 5 && !(await viewer.page.evaluate(() => document.activeElement.id === 'unmute')); step++) await viewer.page.keyboard.press('Tab');
      await viewer.page.keyboard.press('Enter');
      const sounds = (isOn) => viewer.page.waitForFunction((isOn) => document.querySelector('#picture').muted !== isOn && document.activeElement.id === 'sound' && document.activeElement.ariaPressed === String(isOn), isOn, patience);
      await sounds(true);
      await viewer.page.keyboard.press('Space');
      await sounds(false);
      await page.getByRole('button', { name: 'Stop sharing' }).click();
      await says(viewer.page, '#cover-title', 'The stream has ended');
      await viewer.page.screenshot({ path: join(folder, `ended-${name}-${colorScheme}.png`) });
      t.diagnostic(`pictures of the page: ${folder}`);
    });
  }
}
