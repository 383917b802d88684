/**
 * Tests that shared screens are sent and shown, whatever their size. A browser on a busy machine sends
 * them smaller, so these tests are alone on the machine.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { PATIENCE_MS, come, sharing } from './harness.js';
import { assertShape } from './judge.js';

const withSession = sharing();

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
