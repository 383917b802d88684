/**
 * Tests of rooms in Chromium without the SDK: a page publishes by WHIP, others watch by WHEP. Every
 * frame that a viewer sees is processed, in order, and the first one comes at once.
 */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { BINARY, open, PATIENCE_MS, withSession } from './harness.js';
import { assertHidden, assertInOrder, assertSize } from './judge.js';
import { prepare } from './whip.js';

const FRAMES = 120;
/** A viewer's first picture must come within a second of its answer; a busy machine gets more. */
const FIRST_PICTURE_MS = 5000;

let opened;
before(async () => {
  opened = await open({ audio: true });
  await prepare(opened.page);
});
after(() => opened?.end());

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

/** Waits until the publisher's pictures flow: viewers that come earlier are told that it is inactive. */
async function sending(room) {
  const sessions = async () => (await (await fetch(new URL('/api/sessions', opened.gateway.url))).json()).sessions;
  const flow = async () => (await sessions()).some((session) => session.room === room && session.stats?.fps_out > 5);
  for (const deadline = Date.now() + PATIENCE_MS; !(await flow()); await new Promise((resolve) => setTimeout(resolve, 50))) {
    assert.ok(Date.now() < deadline, 'no pictures of the publisher');
  }
}

test('viewers of a room see the effect from the first frame on, in their own codec, and hear the publisher', async () => {
  const { page, played } = opened;
  await page.evaluate(() => publish('studio', '?effect=background_blur'));
  await sending('studio');
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

test('an image shows the pictures of a room as they come', async () => {
  const { page, played } = opened;
  const shown = await page.evaluate(async (patience) => {
    const image = Object.assign(new Image(), { src: 'rooms/studio/stream.mjpeg?fps=10' });
    document.body.append(image);
    const canvas = Object.assign(document.createElement('canvas'), { width: 64, height: 48 });
    const context = canvas.getContext('2d', { willReadFrequently: true });
    const pictures = new Set();
    for (const deadline = Date.now() + patience; pictures.size < 10 && Date.now() < deadline; ) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      if (!image.naturalWidth) continue;
      context.drawImage(image, 0, 0, 64, 48);
      pictures.add(context.getImageData(0, 0, 64, 48).data.join());
    }
    const size = [image.naturalWidth, image.naturalHeight];
    image.remove();
    const snapshot = await createImageBitmap(await (await fetch('rooms/studio/snapshot.jpg')).blob());
    return { pictures: pictures.size, size, snapshot: [snapshot.width, snapshot.height] };
  }, PATIENCE_MS);
  const size = [played.width, played.height];
  assert.deepEqual(shown, { pictures: 10, size, snapshot: size });
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

/** Calls `use` with the origin of a page that is not the gateway's. */
async function withOrigin(use) {
  const server = createServer((_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><link rel="icon" href="data:,">'));
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  try {
    return await use(`http://127.0.0.1:${server.address().port}`);
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

/** Makes a key for a role. Returns `{key, lines}`; the lines are those of the configuration that let it in. */
function keyFor(role) {
  const [key, ...lines] = spawnSync(BINARY, ['token', 'key', '--role', role, '--name', role], { encoding: 'utf8' }).stdout.split('\n');
  return { key, lines: lines.join('\n') };
}

test('a page of another origin publishes and watches with tokens, like VDO.Ninja', () =>
  withOrigin(async (origin) => {
    const [publishing, viewing] = [keyFor('publish'), keyFor('view')];
    const config = [`[serve]\nallow_origins = ["${origin}"]\n[auth]\nmode = "keys"`, publishing.lines, viewing.lines].join('\n');
    const folder = mkdtempSync(join(tmpdir(), 'ooblex-rooms-'));
    const path = join(folder, 'ooblex.toml');
    writeFileSync(path, config);
    try {
      await withSession({ gateway: ['--config', path] }, async ({ browser, gateway, played }) => {
        // The address is percent-encoded in the address of the page.
        const whip = encodeURIComponent(new URL('whip/guest?effect=background_blur', gateway.url).href);
        const { page, errors, requests } = await browser.page(`${origin}/?whipout=${whip}`);
        await page.evaluate((layout) => (probe.layout = layout), played.layout);
        await prepare(page);
        const statuses = await page.evaluate(
          async ([mayPublish, mayView, whep]) => {
            const bearer = (key) => ({ Authorization: `Bearer ${key}` });
            const camera = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
            const [publisher, viewer] = [new RTCPeerConnection(), new RTCPeerConnection()];
            publisher.addTransceiver(camera.getVideoTracks()[0], { direction: 'sendonly' });
            const { session: published } = await exchange(publisher, new URLSearchParams(location.search).get('whipout'), bearer(mayPublish));
            const line = viewer.addTransceiver('video', { direction: 'recvonly' });
            probe.watch('seen', line.receiver.track);
            const { session: watched } = await exchange(viewer, whep, bearer(mayView));
            while (probe.seen.seen.length < 30) await new Promise((resolve) => setTimeout(resolve, 50));
            const end = async (session, key) => (await fetch(session, { method: 'DELETE', headers: bearer(key) })).status;
            return [await end(watched, mayView), await end(published, mayPublish), await end(published, mayPublish)];
          },
          [publishing.key, viewing.key, new URL('whep/guest', gateway.url).href],
        );
        assert.deepEqual(statuses, [200, 200, 404]);
        assertHidden(await page.evaluate(() => probe.seen.seen), played, ['blurred']);
        assert.ok(requests.some((url) => url.startsWith(gateway.url)));
        assert.deepEqual(errors.filter((error) => !error.includes('404')), []);
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }));

test('a viewer sees and hears the publisher that comes back, on the same connection', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ooblex-rooms-'));
  const path = join(folder, 'ooblex.toml');
  writeFileSync(path, '[rooms]\nlinger_s = 30');
  try {
    await withSession({ audio: true, gateway: ['--config', path] }, async ({ page, played, gateway }) => {
      await prepare(page);
      const counts = () =>
        page.evaluate(async () => {
          const stats = [...(await probe.kept['whep viewer'].connection.getStats()).values()];
          const sound = stats.find(({ type, kind }) => type === 'inbound-rtp' && kind === 'audio');
          return { frames: probe.seen.viewer.length, audible: (sound?.totalSamplesReceived ?? 0) - (sound?.concealedSamples ?? 0) };
        });
      const grown = async ({ frames, audible }) => {
        for (const deadline = Date.now() + PATIENCE_MS; ; await new Promise((resolve) => setTimeout(resolve, 100))) {
          const now = await counts();
          // A second of sound has 48,000 samples.
          if (now.frames >= frames + 60 && now.audible >= audible + 48_000) return now;
          assert.ok(Date.now() < deadline, `${JSON.stringify(now)} after ${frames} frames and ${audible} samples`);
        }
      };
      await page.evaluate(() => publish('stage', '?effect=background_blur'));
      await page.evaluate(() => watch('stage', 'viewer', 'vp8'));
      // Only sound that is played is counted.
      await page.evaluate(() => {
        const [, sound] = probe.kept['whep viewer'].connection.getReceivers();
        const player = Object.assign(new Audio(), { srcObject: new MediaStream([sound.track]) });
        probe.keep('player', player);
        return player.play();
      });
      let seen = await grown({ frames: 0, audible: 0 });
      for (const effect of ['background_blur', 'invert']) {
        await page.evaluate(async () => {
          const { connection, session } = probe.kept['whip stage'];
          await fetch(session, { method: 'DELETE' });
          connection.close();
        });
        await new Promise((resolve) => setTimeout(resolve, 1500));
        seen = await counts();
        await page.evaluate((effect) => publish('stage', `?effect=${effect}`), effect);
        await grown(seen);
      }
      const records = await page.evaluate(() => probe.seen.viewer);
      const early = records.filter(({ rtp }, index) => index > 0 && ((rtp - records[index - 1].rtp) | 0) <= 0);
      assert.deepEqual(early, [], 'frames whose capture time did not go up');
      assertHidden(records.slice(0, seen.frames), played, ['blurred']);
      assertHidden(records, played, ['blurred', 'painted']);
      const { rooms } = await (await fetch(new URL('/api/rooms', gateway.url))).json();
      assert.deepEqual([rooms.length, rooms[0].effect, rooms[0].viewers.length], [1, 'invert', 1]);
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
