/**
 * Tests that the picture comes back with the camera's shape: portrait, odd, large, and when its
 * size changes during a call.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { PATIENCE_MS, sharing } from './harness.js';
import { assertHidden, assertInOrder, assertOnFace, assertSize } from './judge.js';

const withSession = sharing();

/**
 * Waits until the last frames that came back have this size: browsers begin with a low resolution
 * and increase it.
 */
const come = (page, width, height, count = 10) =>
  page.waitForFunction(([width, height, count]) => probe.seen.output.length >= count && probe.seen.output.slice(-count).every((record) => record.width === width && record.height === height), [width, height, count], { timeout: PATIENCE_MS });

const assertShape = (records, shape) => assert.deepEqual(records.filter(({ width, height }) => Math.abs(width / height / shape - 1) > 0.015).map(({ width, height }) => `${width}x${height}`), [], 'frames of another shape');

for (const { width, height } of [{ width: 360, height: 640 }, { width: 638, height: 478 }, { width: 1280, height: 720 }]) {
  for (const codec of ['vp8', 'h264']) {
    test(`${width}x${height} over ${codec}`, () =>
      withSession({ width, height }, async ({ played, page, connect, changeEffect, seen, heard }) => {
        await connect({ effect: 'face_detection', codec });
        await come(page, width, height, 40);
        const [faces, detections] = [await seen(), await heard('detections')];
        const { ack } = await changeEffect('background_blur');
        await page.waitForFunction((rtp) => probe.seen.output.filter((record) => ((record.rtp - rtp) | 0) >= 0).length >= 20, ack.timestamp, { timeout: PATIENCE_MS });
        const records = await seen();
        assertShape(records, width / height);
        assertInOrder(records, played, { readable: 0.8 });
        const full = (record) => record.width === width;
        assertHidden(faces.filter(full), played, ['framed', 'painted', 'blurred']);
        const whole = detections.filter((told) => told.width === width);
        assertOnFace(whole, faces, played);
        assertHidden(records.filter((record) => full(record) && ((record.rtp - ack.timestamp) | 0) >= 0), played, ['blurred']);
      }));
  }
}

for (const codec of ['vp8', 'h264']) {
  test(`an odd size over ${codec}`, () =>
    withSession({}, async ({ played, page, connect, seen }) => {
      await page.evaluate(() => {
        const { readable } = new MediaStreamTrackProcessor({ track: probe.camera.getVideoTracks()[0] });
        const made = new MediaStreamTrackGenerator({ kind: 'video' });
        const cut = new TransformStream({
          transform(frame, out) {
            out.enqueue(new VideoFrame(frame, { visibleRect: { x: 0, y: 0, width: 637, height: 479 }, displayWidth: 637, displayHeight: 479 }));
            frame.close();
          },
        });
        void readable.pipeThrough(cut).pipeTo(made.writable);
        probe.camera = new MediaStream([made]);
      });
      await connect({ effect: 'background_blur', codec });
      await page.waitForFunction(() => probe.seen.output?.length >= 30, null, { timeout: PATIENCE_MS });
      const records = await seen();
      // A codec that supports only even sizes loses the last column; the browser drops it before it
      // sends.
      const [width, height] = codec === 'vp8' ? [637, 479] : [records.at(-1).width, records.at(-1).height];
      assert.ok(Math.abs(width - 637) <= 1 && Math.abs(height - 479) <= 1, `${width}x${height}`);
      assertSize(records, width, height);
      assertInOrder(records, played, { readable: 0.8 });
      assertHidden(records, played, ['blurred']);
    }));
}

test('a camera held upright: its picture is turned, not stretched', () =>
  withSession({}, async ({ page, connect, seen }) => {
    await page.evaluate(() => {
      const { readable } = new MediaStreamTrackProcessor({ track: probe.camera.getVideoTracks()[0] });
      const made = new MediaStreamTrackGenerator({ kind: 'video' });
      const turn = new TransformStream({
        transform(frame, out) {
          out.enqueue(new VideoFrame(frame, { rotation: 90 }));
          frame.close();
        },
      });
      void readable.pipeThrough(turn).pipeTo(made.writable);
      probe.camera = new MediaStream([made]);
    });
    await connect({ effect: 'background_blur' });
    await page.waitForFunction(() => probe.seen.output?.length >= 30, null, { timeout: PATIENCE_MS });
    const shapes = new Set((await seen()).map(({ shown }) => shown));
    assert.deepEqual([...shapes], ['480x640']);
  }));

test('the sender scales down and up again', () =>
  withSession({}, async ({ played, page, connect, moreFrames, seen }) => {
    await connect({ effect: 'background_blur' });
    await moreFrames(20);
    const scale = (by) =>
      page.evaluate(async (by) => {
        const sender = probe.kept['output.pc'].getSenders().find(({ track }) => track?.kind === 'video');
        const parameters = sender.getParameters();
        parameters.encodings[0].scaleResolutionDownBy = by;
        await sender.setParameters(parameters);
      }, by);
    for (const [by, width, height] of [[2, 320, 240], [1, 640, 480], [4, 160, 120], [1.5, 427, 320], [1, 640, 480]]) {
      await scale(by);
      await come(page, width, height);
    }
    const records = await seen();
    assertShape(records, 4 / 3);
    assertInOrder(records, played, { readable: 0.8 });
    assertHidden(records.filter(({ width }) => width >= 320), played, ['blurred']);
  }));

/** Makes a drawing of this size the source, as of a shared screen. */
const draw = (page, width, height) =>
  page.evaluate(
    ([width, height]) => {
      const canvas = Object.assign(document.createElement('canvas'), { width, height });
      const context = canvas.getContext('2d', { alpha: false });
      let number = 0;
      setInterval(() => {
        context.fillStyle = ++number % 2 ? '#304050' : '#405060';
        context.fillRect(0, 0, width, height);
      }, 100);
      probe.camera = canvas.captureStream(10);
    },
    [width, height],
  );

test('a screen that the SDK opens is no larger than 1920x1080', () =>
  withSession({}, async ({ page, connect }) => {
    const { width, height } = await page.evaluate(async () => {
      probe.camera = await probe.sdk.openScreen();
      return probe.camera.getVideoTracks()[0].getSettings();
    });
    assert.ok(width <= 1920 && height <= 1080, `${width}x${height}`);
    await connect({ effect: 'none' });
    await come(page, width, height);
  }));

for (const [width, height, sent] of [[1920, 1200, [1800, 1125]], [2560, 1440, [1920, 1080]], [3840, 2160, [1920, 1080]]]) {
  test(`a screen of ${width}x${height} is sent as small as the gateway allows`, () =>
    withSession({}, async ({ page, connect, heard }) => {
      await draw(page, width, height);
      await connect({ effect: 'none' });
      await come(page, ...sent);
      await page.waitForFunction(() => probe.kept['output.stats'].length >= 2, null, { timeout: PATIENCE_MS });
      const [wide, high] = sent;
      for (const { received } of await heard('stats')) if (received) assert.deepEqual(received, { width: wide, height: high });
    }));

  test(`a screen of ${width}x${height} from a sender that does not scale is scaled down by the gateway`, () =>
    withSession({}, async ({ page, connect, seen }) => {
      await draw(page, width, height);
      await page.evaluate(() => {
        const { setParameters } = RTCRtpSender.prototype;
        RTCRtpSender.prototype.setParameters = function (parameters) {
          for (const encoding of parameters.encodings) delete encoding.scaleResolutionDownBy;
          return setParameters.call(this, { ...parameters, degradationPreference: 'maintain-resolution' });
        };
      });
      await connect({ effect: 'none' });
      const processed = { width: sent[0], height: 2 * Math.floor(sent[1] / 2) };
      await page.waitForFunction(
        ([received, processed]) => probe.kept['output.stats'].some((stats) => stats.received?.width === received && stats.processed.width === processed.width && stats.processed.height === processed.height && stats.fps_out > 0),
        [width, processed],
        { timeout: PATIENCE_MS },
      );
      await page.waitForFunction(() => probe.seen.output.length >= 5, null, { timeout: PATIENCE_MS });
      assertShape(await seen(), width / height);
    }));
}

test('the camera itself changes its size', () =>
  withSession({}, async ({ page, connect, moreFrames, seen }) => {
    await connect({ effect: 'background_blur' });
    await moreFrames(20);
    const before = await page.evaluate(() => probe.kept.output.id);
    await page.evaluate(() => probe.camera.getVideoTracks()[0].applyConstraints({ width: { exact: 320 }, height: { exact: 240 } }));
    await come(page, 320, 240);
    await page.evaluate(() => probe.camera.getVideoTracks()[0].applyConstraints({ width: { exact: 640 }, height: { exact: 480 } }));
    await come(page, 640, 480);
    assert.equal(await page.evaluate(() => probe.kept.output.id), before);
    assert.ok((await seen()).length > 20);
  }));
