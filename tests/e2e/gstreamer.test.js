/**
 * Tests of rooms with GStreamer's webrtcbin on another machine, which is a network namespace. It makes
 * a keyframe every ten seconds and none when it is asked. libnice 0.1.21 and older sends no ICE check once
 * it is connected, so a test that takes more than 15 s shows that media and reports keep a session.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { anotherMachine } from '../deploy/machines.js';
import { clip } from './clip.js';
import { missing, publish, watch } from './gstreamer.js';
import { PATIENCE_MS, startBrowser, startGateway } from './harness.js';
import { assertHidden, assertInOrder } from './judge.js';
import { measure } from './measure.js';
import { prepare } from './whip.js';

const played = clip({ width: 320, height: 240, measure });
/** Number of frames that are judged in Chromium; half as many are in GStreamer. */
const FRAMES = Number(process.env.OOBLEX_FRAMES || 500);
const EVERY_10_S = ['--keyframes', '300', '--deaf'];
/** A viewer's first picture must come within a second of its answer; a busy machine gets more tries. */
const FIRST_PICTURE_MS = 1000;
const TRIES = 5;

/** Calls `use` with a gateway, a page on this machine, and another machine. */
async function withMachine(t, use) {
  const lacking = missing();
  if (lacking) return t.skip(lacking);
  const machine = anotherMachine();
  if (machine.missing) return t.skip(`there is no other machine to play: ${machine.missing}`);
  let [gateway, browser] = [];
  const clients = [];
  try {
    const environment = { OOBLEX_AUTH__MODE: 'none', OOBLEX_SERVE__HOSTS: machine.here };
    gateway = await startGateway(['--listen', `${machine.here}:0`, '--media', `${machine.here}:0`], environment);
    browser = await startBrowser(played);
    const { page } = await browser.page(new URL('healthz', gateway.url).href);
    await page.evaluate((layout) => (probe.layout = layout), played.layout);
    await prepare(page);
    const start = (begin, path, ...options) => {
      const client = begin(machine, new URL(path, gateway.url).href, played, options);
      clients.push(client);
      return client;
    };
    await use({ page, start });
    for (const client of clients.splice(0).reverse()) await client.end();
  } catch (error) {
    error.message += `\n--- the gateway wrote:\n${gateway?.log()}`;
    throw error;
  } finally {
    for (const client of clients) await client.end().catch(() => {});
    await browser?.close();
    await gateway?.stop();
    machine.end();
  }
}

async function until(what, condition) {
  for (const deadline = Date.now() + PATIENCE_MS; !(await condition()); await new Promise((resolve) => setTimeout(resolve, 20))) {
    assert.ok(Date.now() < deadline, `no ${what} within ${PATIENCE_MS / 1000} s`);
  }
}

/** Watches in the page. Returns the time of the answer, as the time of day. */
const watchHere = (page, room, name, codec) =>
  page.evaluate(async ([room, name, codec]) => performance.timeOrigin + (await watch(room, name, codec)), [room, name, codec]);

/** Returns the frames that the page has seen; their time is the time of day. */
const seen = (page, name) => page.evaluate((name) => (probe.seen[name] ?? []).map((record) => ({ ...record, t: performance.timeOrigin + record.t })), name);

/** Ends a viewer in the page. */
const leave = (page, name) => page.evaluate(async (name) => fetch(probe.kept[name].session, { method: 'DELETE' }), `whep ${name}`);

async function framesOf(page, name, count, timeout = PATIENCE_MS) {
  await page.waitForFunction(([name, count]) => probe.seen[name].length >= count, [name, count], { timeout }).catch(async (error) => {
    const records = await seen(page, name);
    throw new Error(`${name}: ${records.length} of ${count} frames, the last ${Math.round(Date.now() - records.at(-1)?.t)} ms ago`, { cause: error });
  });
  return seen(page, name);
}

/**
 * Asserts that every frame is blurred, and that frames come in order. On a busy machine, a viewer that
 * waits for its next picture gets the last one again, and those that waited arrive together: therefore
 * the time of a frame is that of its capture.
 */
function assertBlurred(records) {
  assertHidden(records, played, ['blurred']);
  // On a busy machine, viewers get smaller pictures.
  const strange = records.filter(({ width, height }) => width > played.width || Math.abs((width * played.height) / (height * played.width) - 1) > 0.015);
  assert.deepEqual(strange.map(({ width, height }) => `${width}x${height}`), [], 'pictures of another shape');
  assert.ok(records.some(({ width }) => width === played.width), 'no picture has the full size');
  const fresh = records.filter(({ number }, index) => index > 0 && (number === null || number !== records[index - 1].number));
  assert.ok(fresh.length >= 0.8 * records.length, `only ${fresh.length} of ${records.length} frames show something new`);
  assertInOrder(fresh.map((record) => ({ ...record, t: ((record.rtp - records[0].rtp) | 0) / 90 })), played);
}

/**
 * Publishes, and waits until pictures flow: before the first processed picture of a room, a viewer may
 * see a newer frame, made safe.
 */
async function publishing({ page, start }, room, ...options) {
  const publisher = start(publish, `whip/${room}?effect=background_blur`, ...options);
  await until('connection', () => publisher.told('connected'));
  await watchHere(page, room, 'early', 'vp8');
  assertHidden(await framesOf(page, 'early', 30), played, ['blurred']);
  await leave(page, 'early');
  return publisher;
}

test(`GStreamer publishes VP8: of ${FRAMES} frames in Chromium each is blurred, in order`, (t) =>
  withMachine(t, async ({ page, start }) => {
    const publisher = await publishing({ page, start }, 'studio', ...EVERY_10_S);
    await watchHere(page, 'studio', 'chromium', 'vp8');
    const viewer = start(watch, 'whep/studio', '--codec', 'h264');
    const firsts = [];
    // Viewers that come and go beside the others.
    for (let index = 0; index < TRIES && !(Math.min(...firsts) < FIRST_PICTURE_MS && firsts.length > 2); index++) {
      const answered = await watchHere(page, 'studio', `guest ${index}`, index % 2 ? 'h264' : 'vp8');
      const records = await framesOf(page, `guest ${index}`, 30);
      assertBlurred(records);
      const waited = publisher.events.filter(({ t, event }) => event === 'keyframe' && t > answered - 500 && t < records[0].t);
      if (waited.length === 0) firsts.push(records[0].t - answered);
      await leave(page, `guest ${index}`);
    }
    t.diagnostic(`first pictures ${firsts.map(Math.round).join(', ')} ms after the answer, without a keyframe of the publisher; GStreamer: ${viewer.told('picture') - viewer.told('answered')} ms`);
    assert.ok(Math.min(...firsts) < FIRST_PICTURE_MS);

    const records = await framesOf(page, 'chromium', FRAMES, 3 * PATIENCE_MS);
    assertBlurred(records.slice(0, FRAMES));
    await until(`${FRAMES / 2} frames in GStreamer`, () => viewer.records.length >= FRAMES / 2);
    assertBlurred(viewer.records);
    const [fps, there] = [records, viewer.records].map((all) => ((all.length - 1) * 1000) / (all.at(-1).t - all[0].t));
    t.diagnostic(`${records.length} frames in Chromium at ${fps.toFixed(1)} fps, ${viewer.records.length} in GStreamer at ${there.toFixed(1)} fps`);
    const keyframes = publisher.events.filter(({ event }) => event === 'keyframe').length;
    assert.ok(keyframes <= 2 + (Date.now() - publisher.events[0].t) / 10_000, `${keyframes} keyframes`);
  }));

test('GStreamer publishes H.264 and watches VP8; without an effect, the frames are found to be unprocessed', (t) =>
  withMachine(t, async ({ page, start }) => {
    await publishing({ page, start }, 'studio', '--codec', 'h264');
    const bare = start(publish, 'whip/bare?effect=none', '--codec', 'h264');
    await until('connection', () => bare.told('connected'));
    const viewer = start(watch, 'whep/studio');
    await watchHere(page, 'studio', 'chromium', 'h264');
    await watchHere(page, 'bare', 'unprocessed', 'h264');
    assertBlurred(await framesOf(page, 'chromium', 120));
    await until('120 frames in GStreamer', () => viewer.records.length >= 120);
    assertBlurred(viewer.records);
    const unprocessed = await framesOf(page, 'unprocessed', 60);
    assert.throws(() => assertBlurred(unprocessed), /were not blurred/);
  }));
