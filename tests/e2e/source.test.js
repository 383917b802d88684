/**
 * Tests of sources that stop and come back: a camera that is off, taken away, or turned, and a file
 * in a tab in the background.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { PATIENCE_MS, sharing, startGateway } from './harness.js';
import { assertHidden, assertInOrder, assertSize, figures } from './judge.js';
import { startTabs } from './tabs.js';

const withSession = sharing();

/** Maximum time until a source is reported as silent, and until it is sharp when it is back. */
const SILENT_WITHIN_MS = 3_000;
const SHARP_WITHIN_MS = 1_000;
/** Codecs leave more than this share of the energy of the background's edges in a sharp picture. */
const SHARP = 0.7;

/** Ways to switch a camera off and on again, run in the page; `sender` is that of the video. */
const WAYS = {
  'no track': { off: ({ sender }) => sender.replaceTrack(null), on: ({ sender, camera }) => sender.replaceTrack(camera) },
  'a track that has ended': {
    off: ({ sender, camera }) => (probe.spare = camera.clone(), sender.track.stop()),
    on: () => probe.kept.output.replaceSource(new MediaStream([probe.spare])),
  },
  'a track that delivers nothing': {
    before: () => {
      const made = new MediaStreamTrackGenerator({ kind: 'video' });
      probe.flows = true;
      const valve = new TransformStream({ transform: (frame, out) => (probe.flows ? out.enqueue(frame) : frame.close()) });
      void new MediaStreamTrackProcessor({ track: probe.camera.getVideoTracks()[0] }).readable.pipeThrough(valve).pipeTo(made.writable);
      probe.camera = new MediaStream([made]);
    },
    off: () => (probe.flows = false),
    on: () => (probe.flows = true),
  },
};

for (const [name, { before = () => {}, off, on }] of Object.entries(WAYS)) {
  test(`a camera that is off is reported, and sharp when it is back: ${name}`, () =>
    withSession({}, async ({ played, page, connect, moreFrames, seen }) => {
      await page.evaluate(before);
      await connect({ effect: 'none' });
      await page.evaluate(() => {
        probe.told = [];
        probe.kept.output.on('source', ({ state }) => probe.told.push({ state, t: performance.now() }));
      });
      await moreFrames(60);
      /** Runs one of the ways; returns the time in the page. */
      const turn = (way) =>
        page.evaluate(`(async () => {
          const sender = probe.kept['output.pc'].getSenders().find((sender) => sender.track?.kind !== 'audio');
          const began = performance.now();
          await (${way})({ sender, camera: probe.camera.getVideoTracks()[0] });
          return began;
        })()`);
      const told = (state) => page.waitForFunction((state) => probe.told.at(-1)?.state === state, state, { timeout: PATIENCE_MS });
      const offAt = await turn(off);
      await told('silent');
      assert.equal(await page.evaluate(() => probe.kept.output.sourceState), 'silent');
      const { t: silentAt } = await page.evaluate(() => probe.told.at(-1));
      assert.ok(silentAt - offAt <= SILENT_WITHIN_MS, `reported after ${silentAt - offAt} ms`);
      // The bandwidth estimates of both sides get old.
      await new Promise((resolve) => setTimeout(resolve, 3_000));
      const onAt = await turn(on);
      await told('live');
      await page.waitForFunction((until) => probe.seen.output.at(-1).t > until, onAt + SHARP_WITHIN_MS + 1_000, { timeout: PATIENCE_MS });
      const back = (await seen()).filter(({ t }) => t >= onAt + SHARP_WITHIN_MS);
      assertSize(back, 640, 480);
      const blurred = back.map((record) => figures(record, played)).filter(({ energy }) => energy < SHARP);
      assert.deepEqual(blurred, [], `${blurred.length} of ${back.length} pictures were not sharp`);
      assert.equal(await page.evaluate(() => probe.kept.output.state), 'live');
      assert.deepEqual(await page.evaluate(() => probe.told.map(({ state }) => state).filter((state, index, all) => state !== all[index - 1])), ['silent', 'live']);
    }));
}

for (const effect of ['background_blur', 'face_anonymize']) {
  test(`a phone that is turned: every picture is upright and hidden by its own mask, ${effect}`, () =>
    withSession({}, async ({ played, page, connect, seen, heard }) => {
      // The sensor turns with the phone, and the rotation in each frame makes up for it.
      await page.evaluate(() => {
        const { readable } = new MediaStreamTrackProcessor({ track: probe.camera.getVideoTracks()[0] });
        const made = new MediaStreamTrackGenerator({ kind: 'video' });
        const canvas = new OffscreenCanvas(640, 480);
        const context = canvas.getContext('2d', { alpha: false });
        let count = 0;
        const turn = new TransformStream({
          transform(frame, out) {
            const rotation = 90 * (Math.floor(count++ / 25) % 4);
            [canvas.width, canvas.height] = rotation % 180 ? [480, 640] : [640, 480];
            context.translate(canvas.width / 2, canvas.height / 2);
            context.rotate((-rotation * Math.PI) / 180);
            context.drawImage(frame, -320, -240);
            const { timestamp } = frame;
            frame.close();
            out.enqueue(new VideoFrame(canvas, { timestamp, rotation }));
          },
        });
        void readable.pipeThrough(turn).pipeTo(made.writable);
        probe.camera = new MediaStream([made]);
      });
      await connect({ effect });
      await page.waitForFunction(() => probe.seen.output?.length >= 150, null, { timeout: PATIENCE_MS });
      const records = await seen();
      const rotated = records.filter(({ shown }) => shown !== '640x480').map(({ shown }) => shown);
      assert.deepEqual(rotated, [], 'pictures that are not upright');
      assertInOrder(records, played, { readable: 0.8 });
      if (effect === 'background_blur') assertHidden(records, played, ['blurred']);
      assert.deepEqual(await heard('close'), []);
    }));
}

test('a file goes on in a tab in the background', async () => {
  const gateway = await startGateway();
  let tabs = null;
  try {
    tabs = await startTabs();
    const page = await tabs.tab(new URL('healthz', gateway.url).href);
    await page.evaluate(async () => {
      const sdk = await import('/sdk/ooblex.js');
      const canvas = Object.assign(document.createElement('canvas'), { width: 320, height: 240 });
      const context = canvas.getContext('2d');
      const recorder = new MediaRecorder(canvas.captureStream(30), { mimeType: 'video/webm;codecs=vp8' });
      const parts = [];
      recorder.addEventListener('dataavailable', ({ data }) => parts.push(data));
      const recorded = new Promise((resolve) => recorder.addEventListener('stop', resolve));
      recorder.start();
      for (let hue = 0; hue < 90; hue++) {
        context.fillStyle = `hsl(${4 * hue} 80% 50%)`;
        context.fillRect(0, 0, 320, 240);
        await new Promise((resolve) => setTimeout(resolve, 33));
      }
      recorder.stop();
      await recorded;
      window.stats = [];
      window.session = await sdk.connect({ effect: 'none', source: await sdk.openFile(new Blob(parts, { type: 'video/webm' })) });
      session.on('stats', (stats) => window.stats.push(stats));
      const reader = new MediaStreamTrackProcessor({ track: session.output.getVideoTracks()[0] }).readable.getReader();
      window.colours = [];
      void (async () => {
        for (let frame; (frame = (await reader.read()).value); frame.close()) {
          const data = new Uint8Array(frame.allocationSize());
          await frame.copyTo(data);
          window.colours.push(data[160 + 120 * 320]);
        }
      })();
      const shown = () => window.stats.some(({ fps_out: fps }) => fps > 10);
      while (!shown()) await new Promise((resolve) => setTimeout(resolve, 50));
    });
    await tabs.tab('about:blank');
    const hidden = await page.evaluate(async () => {
      const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
      while (!document.hidden) await wait(50);
      await wait(2_000);
      [window.stats.length, window.colours.length] = [0, 0];
      await wait(5_000);
      return { hidden: document.hidden, fps: window.stats.map(({ fps_in: fps }) => fps), colours: window.colours.filter((colour, index, all) => colour !== all[index - 1]).length, source: window.session.sourceState };
    });
    assert.deepEqual([hidden.hidden, hidden.source], [true, 'live']);
    assert.ok(hidden.fps.length >= 3 && hidden.fps.every((fps) => fps >= 10), `frames per second: ${hidden.fps}`);
    assert.ok(hidden.colours >= 25, `${hidden.colours} changes of the picture in 5 s`);
  } finally {
    await tabs?.close();
    await gateway.stop();
  }
});
