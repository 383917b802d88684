/**
 * Tests that colours come back as they were sent, whatever range and matrix the browser sends: a
 * camera (limited range), a canvas and a file (full range).
 *
 * Every source shows the same still picture, so that its frames need not be paired. Pictures are
 * compared as the browser shows them, in RGB, by the means of blocks of 4x4 pixels: colours are
 * tested here, not the noise of codecs.
 */

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { PATIENCE_MS, openPage, startBrowser, startGateway } from './harness.js';
import { clip } from './clip.js';
import { measure } from './measure.js';

const [WIDTH, HEIGHT] = [640, 480];
/** Minimum similarity of what comes back, in dB; 27 dB if the range is mistaken. */
const ALIKE_DB = 40;
/** Minimum similarity of two pictures that a model has painted, in dB. */
const PAINTED_ALIKE_DB = 34;
const BLOCK = 4;
/** Grey levels that a canvas shows: the ends of the range, and what is near them. */
const LEVELS = [0, 15, 128, 239, 255];

const played = clip({ width: WIDTH, height: HEIGHT, measure });
const folder = mkdtempSync(join(tmpdir(), 'ooblex-colours-'));
let gateway;
let browser;

before(async () => {
  gateway = await startGateway();
  browser = await startBrowser({ ...played, file: stillClip() });
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** Writes a camera clip that repeats the first frame of the clip. Returns its path. */
function stillClip() {
  const bytes = readFileSync(played.file);
  const begin = bytes.indexOf('FRAME\n');
  const frame = bytes.subarray(begin, begin + 'FRAME\n'.length + (WIDTH * HEIGHT * 3) / 2);
  const file = join(folder, 'still.y4m');
  writeFileSync(file, Buffer.concat([bytes.subarray(0, begin), ...Array(10).fill(frame)]));
  return file;
}

/** Opens a page with the functions of the tests in `probe`. */
async function opened() {
  const made = await openPage(browser, gateway, played);
  await made.page.evaluate(
    async ([width, height, block]) => {
      /** Returns the newest frame of a track in RGB, as the browser shows it, in a canvas. */
      probe.shown = async (track) => {
        const reader = new MediaStreamTrackProcessor({ track: track.clone() }).readable.getReader();
        const { value: frame } = await reader.read();
        const canvas = new OffscreenCanvas(width, height);
        canvas.getContext('2d', { willReadFrequently: true }).drawImage(frame, 0, 0, width, height);
        frame.close();
        await reader.cancel();
        return canvas;
      };
      probe.pixels = async (track) => (await probe.shown(track)).getContext('2d').getImageData(0, 0, width, height).data;
      probe.picture = await probe.shown(probe.camera.getVideoTracks()[0]);
      probe.psnr = (a, b) => {
        let [sum, count] = [0, 0];
        // The marker in the upper left corner changes from frame to frame.
        for (let top = 16; top < height; top += block) {
          for (let left = 0; left < width; left += block) {
            for (let channel = 0; channel < 3; channel++) {
              let difference = 0;
              for (let y = top; y < top + block; y++) for (let x = left; x < left + block; x++) difference += a[4 * (y * width + x) + channel] - b[4 * (y * width + x) + channel];
              sum += (difference / block ** 2) ** 2;
              count++;
            }
          }
        }
        return 10 * Math.log10(255 ** 2 / (sum / count));
      };
      /** Returns a stream of the camera's picture on a canvas, with `levels` at its lower edge. */
      probe.drawn = (levels) => {
        const canvas = Object.assign(document.createElement('canvas'), { width, height });
        const context = canvas.getContext('2d', { alpha: false });
        let number = 0;
        const draw = () => {
          context.drawImage(probe.picture, 0, 0);
          levels.forEach((level, index) => {
            context.fillStyle = `rgb(${level}, ${level}, ${level})`;
            context.fillRect(index * 128, height - 64, 128, 64);
          });
          context.fillStyle = ++number % 2 ? '#808080' : '#707070';
          context.fillRect(0, 0, 16, 16);
        };
        setInterval(draw, 33);
        draw();
        return canvas.captureStream(30);
      };
    },
    [WIDTH, HEIGHT, BLOCK],
  );
  return made;
}

/** Makes this source, `camera`, `canvas` or `file`, that of the next session. */
const choose = (page, source, levels = LEVELS) =>
  page.evaluate(
    async ([source, levels]) => {
      if (source === 'camera') return;
      const drawn = probe.drawn(levels);
      if (source === 'canvas') return void (probe.camera = drawn);
      const recorder = new MediaRecorder(drawn, { mimeType: 'video/webm;codecs=vp8', videoBitsPerSecond: 20_000_000 });
      const parts = [];
      recorder.ondataavailable = ({ data }) => parts.push(data);
      const stopped = new Promise((resolve) => (recorder.onstop = resolve));
      recorder.start();
      await new Promise((resolve) => setTimeout(resolve, 3_000));
      recorder.stop();
      await stopped;
      probe.camera = await probe.sdk.openFile(new File(parts, 'still.webm'));
    },
    [source, levels],
  );

/**
 * Waits until what comes back in a session is like what is sent, or like what comes back in another session, and returns the best
 * similarity in dB: codecs begin with a low quality, and keep it for some time on a busy machine.
 */
const similarity = (page, name, other = null, enough = ALIKE_DB) =>
  page.evaluate(
    async ([name, other, enough, patience]) => {
      let best = 0;
      for (const until = performance.now() + patience; performance.now() < until && best < enough; await new Promise((resolve) => setTimeout(resolve, 200))) {
        const streams = [other ? probe.kept[other].output : probe.camera, probe.kept[name].output];
        best = Math.max(best, probe.psnr(...(await Promise.all(streams.map((stream) => probe.pixels(stream.getVideoTracks()[0]))))));
      }
      return best;
    },
    [name, other, enough, PATIENCE_MS],
  );

for (const source of ['camera', 'canvas', 'file']) {
  for (const codec of ['vp8', 'h264']) {
    test(`a ${source} comes back in its colours over ${codec}`, async () => {
      const { page, connect } = await opened();
      await choose(page, source);
      await connect({ effect: 'none', codec });
      const db = await similarity(page, 'output');
      assert.ok(db >= ALIKE_DB, `${db.toFixed(1)} dB`);
      await page.close();
    });
  }
}

test('black, white and what is near them come back as they were', async () => {
  const { page, connect } = await opened();
  await choose(page, 'canvas');
  await connect({ effect: 'none' });
  await similarity(page, 'output');
  const back = await page.evaluate(async ([width, height]) => {
    const pixels = await probe.pixels(probe.kept.output.output.getVideoTracks()[0]);
    return [0, 1, 2, 3, 4].map((index) => pixels[4 * ((height - 32) * width + index * 128 + 64) + 1]);
  }, [WIDTH, HEIGHT]);
  LEVELS.forEach((level, index) => assert.ok(Math.abs(back[index] - level) <= 3, `${back}`));
  await page.close();
});

test('a source of another range takes over in the middle of a session', async () => {
  const { page, connect } = await opened();
  await connect({ effect: 'none' });
  assert.ok((await similarity(page, 'output')) >= ALIKE_DB, 'the camera');
  const camera = await page.evaluateHandle(() => probe.camera);
  for (const source of ['canvas', 'camera']) {
    if (source === 'camera') await page.evaluate((camera) => (probe.camera = camera), camera);
    else await choose(page, source);
    await page.evaluate(() => probe.kept.output.replaceSource(probe.camera));
    const db = await similarity(page, 'output');
    assert.ok(db >= ALIKE_DB, `${source}: ${db.toFixed(1)} dB`);
  }
  await page.close();
});

test('a model sees the same in both ranges', async () => {
  const { page, connect } = await opened();
  for (const source of ['camera', 'canvas']) {
    await choose(page, source, []);
    await connect({ effect: 'style_transfer', params: { resolution: '180p' } }, source);
    await page.waitForFunction((key) => probe.kept[key].filter(({ state, placeholder }) => state === 'live' && !placeholder).length >= 5, `${source}.stats`, { timeout: PATIENCE_MS });
  }
  const db = await similarity(page, 'camera', 'canvas', PAINTED_ALIKE_DB);
  assert.ok(db >= PAINTED_ALIKE_DB, `${db.toFixed(1)} dB`);
  await page.close();
});
