/** Tests that Chromium plays recordings of rooms, with sound, to the end, and from any time on. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { PATIENCE_MS, withSession } from './harness.js';
import { prepare } from './whip.js';

/** Returns the result of `ask` as soon as `isEnough` holds for it. */
async function until(what, ask, isEnough) {
  for (const deadline = Date.now() + PATIENCE_MS; ; await new Promise((resolve) => setTimeout(resolve, 50))) {
    const answer = await ask();
    if (isEnough(answer)) return answer;
    assert.ok(Date.now() < deadline, `${what}: ${JSON.stringify(answer)}`);
  }
}

/** Runs in the page: plays a file to its end, then from its middle on. Returns what the element tells. */
async function play(url) {
  const video = document.createElement('video');
  const event = (name) =>
    new Promise((resolve, reject) => {
      video.addEventListener(name, resolve, { once: true });
      video.addEventListener('error', () => reject(new Error(video.error.message)), { once: true });
    });
  video.src = url;
  document.body.append(video);
  await event('loadedmetadata');
  const { duration, videoWidth: width } = video;
  const ended = event('ended');
  await video.play();
  await ended;
  const { currentTime: end, webkitAudioDecodedByteCount: soundBytes } = video;
  const frames = video.getVideoPlaybackQuality().totalVideoFrames;
  const seeked = event('seeked');
  video.currentTime = duration / 2;
  await seeked;
  return { duration, width, end, frames, soundBytes, middle: video.currentTime };
}

for (const codec of ['vp8', 'h264']) {
  test(`a recording in ${codec} plays in Chromium`, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ooblex-recordings-'));
    const config = join(folder, 'ooblex.toml');
    writeFileSync(config, `[recordings]\nfolder = "${folder}"\n[video]\ncodecs = ["${codec}"]\n`);
    try {
      await withSession({ audio: true, gateway: ['--config', config] }, async ({ page, gateway }) => {
        await prepare(page);
        await page.evaluate(() => publish('studio', '?effect=sepia'));
        const recordings = new URL('/api/rooms/studio/recordings', gateway.url);
        const list = async () => (await (await fetch(recordings)).json()).files;
        const last = (files) => files.at(-1);
        assert.equal((await fetch(recordings, { method: 'POST' })).status, 201);
        await until('a long file', list, (files) => last(files)?.bytes > 400_000);
        assert.equal((await fetch(recordings, { method: 'DELETE' })).status, 204);
        const { file } = last(await until('a complete file', list, (files) => last(files).is_complete));
        const told = await page.evaluate(play, `${recordings.pathname}/${file}`);
        console.log(`# ${codec}: ${JSON.stringify(told)}`);
        assert.ok(told.duration > 0.5 && told.width > 0 && Math.abs(told.end - told.duration) < 0.2);
        assert.ok(told.frames > told.duration * 10 && told.soundBytes > 0 && Math.abs(told.middle - told.duration / 2) < 0.1);
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
}
