/**
 * Tests of rooms in Chromium without the SDK: a page publishes by WHIP, others watch by WHEP. Every
 * frame that a viewer sees is processed, in order, and the first one comes at once.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { open, PATIENCE_MS } from './harness.js';
import { assertHidden, assertInOrder, assertSize } from './judge.js';

const FRAMES = 120;
/** A viewer's first picture must come within a second of its answer; a busy machine gets more. */
const FIRST_PICTURE_MS = 5000;

let opened;
before(async () => {
  opened = await open({ audio: true });
  await opened.page.evaluate(`Object.assign(globalThis, { publish: ${publish}, watch: ${watch}, listen: ${listen}, exchange: ${exchange} })`);
});
after(() => opened?.end());

/** Runs in the page: posts the offer of a connection and applies the answer. Returns the addresses of the session and of its events. */
async function exchange(connection, path) {
  await connection.setLocalDescription();
  const response = await fetch(path, { method: 'POST', body: connection.localDescription.sdp, headers: { 'Content-Type': 'application/sdp' } });
  if (response.status !== 201) throw new Error(`${response.status} ${await response.text()}`);
  const session = new URL(response.headers.get('Location'), response.url).href;
  await connection.setRemoteDescription({ type: 'answer', sdp: await response.text() });
  const [, events] = /<([^>]*)>; rel="urn:ietf:params:whep:ext:core:server-sent-events"/.exec(response.headers.get('Link')) ?? [];
  return { session, events };
}

/** Runs in the page: publishes the camera to a room. */
async function publish(room, query) {
  const connection = new RTCPeerConnection();
  for (const track of probe.camera.getTracks()) connection.addTransceiver(track.clone(), { direction: 'sendonly' });
  const { session } = await exchange(connection, `/whip/${room}${query}`);
  probe.keep(`whip ${room}`, { connection, session });
  return session;
}

/** Runs in the page: watches a room; its frames are seen under this name. Returns the time of the answer. */
async function watch(room, name, codec) {
  const connection = new RTCPeerConnection();
  const lines = ['video', 'audio'].map((kind) => connection.addTransceiver(kind, { direction: 'recvonly' }));
  const codecs = RTCRtpReceiver.getCapabilities('video').codecs.filter(({ mimeType }) => [`video/${codec}`, 'video/rtx'].includes(mimeType.toLowerCase()));
  lines[0].setCodecPreferences(codecs);
  probe.watch(name, lines[0].receiver.track);
  const { session, events } = await exchange(connection, `/whep/${room}`);
  const answered = performance.now();
  probe.keep(`whep ${name}`, { connection, session, told: listen(events) });
  return answered;
}

/** Runs in the page: reads events of a room. Returns the list to which they are added. */
function listen(address) {
  const told = [];
  const source = new EventSource(address);
  for (const name of ['active', 'inactive', 'viewercount']) {
    source.addEventListener(name, ({ data }) => told.push(Object.values(JSON.parse(data))[0] ?? name));
  }
  source.addEventListener('error', () => source.close());
  return told;
}

async function seen(name, frames) {
  const enough = ([name, frames]) => probe.seen[name].length >= frames;
  await opened.page.waitForFunction(enough, [name, frames], { timeout: PATIENCE_MS });
  return opened.page.evaluate((name) => probe.seen[name], name);
}

/** Returns the number of packets of sound that a viewer has received. */
const heard = (name) =>
  opened.page.evaluate(async (name) => {
    const stats = [...(await probe.kept[`whep ${name}`].connection.getStats()).values()];
    return stats.find(({ type, kind }) => type === 'inbound-rtp' && kind === 'audio')?.packetsReceived ?? 0;
  }, name);

/** Waits until a viewer was told these events of its room, from the first on. */
const told = (name, ...events) => {
  const isTold = ([name, events]) => JSON.stringify(probe.kept[`whep ${name}`].told) === events;
  return opened.page.waitForFunction(isTold, [name, JSON.stringify(events)], { timeout: PATIENCE_MS }).catch(async () => {
    const now = await opened.page.evaluate((name) => probe.kept[`whep ${name}`].told, name);
    assert.deepEqual(now, events);
  });
};

const rooms = async () => (await (await fetch(new URL('/api/rooms', opened.gateway.url))).json()).rooms;

test('viewers of a room see the effect from the first frame on, in their own codec, and hear the publisher', async () => {
  const { page, played } = opened;
  await page.evaluate(() => publish('studio', '?effect=background_blur'));
  for (const codec of ['vp8', 'h264']) {
    const answered = await page.evaluate((codec) => watch('studio', codec, codec), codec);
    const records = await seen(codec, FRAMES);
    assertInOrder(records, played);
    assertSize(records, played.width, played.height);
    assertHidden(records, played, ['blurred']);
    const first = records[0].t - answered;
    console.log(`# ${codec}: the first picture came ${Math.round(first)} ms after the answer`);
    assert.ok(first < FIRST_PICTURE_MS, `${first} ms`);
    assert.ok((await heard(codec)) > 50);
  }
  const [room] = await rooms();
  assert.deepEqual([room.room, room.effect, room.viewers.length], ['studio', 'background_blur', 2]);
  await told('vp8', 'active', 1, 2);
  await told('h264', 'active', 2);
});

test('a viewer that leaves disturbs nobody, and viewers end with their publisher', async () => {
  const { page } = opened;
  const status = await page.evaluate(async () => (await fetch(probe.kept['whep vp8'].session, { method: 'DELETE' })).status);
  assert.equal(status, 200);
  const before = (await seen('h264', 1)).length;
  await seen('h264', before + 30);
  assert.equal((await rooms())[0].viewers.length, 1);
  await told('h264', 'active', 2, 1);
  await page.evaluate(async () => fetch(probe.kept['whip studio'].session, { method: 'DELETE' }));
  const ended = () => ['closed', 'failed', 'disconnected'].includes(probe.kept['whep h264'].connection.connectionState);
  await page.waitForFunction(ended, null, { timeout: PATIENCE_MS });
  assert.deepEqual(await rooms(), []);
  await told('h264', 'active', 2, 1, 'inactive', 0);
});
