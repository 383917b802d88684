/**
 * Tests the sender settings of a session: full resolution if possible, a lower one if the bandwidth
 * is low.
 */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { becomes, PATIENCE_MS, sharing } from './harness.js';

const withSession = sharing();
const LARGE = { width: 1280, height: 720 };

/**
 * Waits until the browser has these sender settings: the maximum bitrate (undefined for its own),
 * and the degradation preference.
 */
const asked = (page, maxBitrate, degradationPreference) =>
  page.waitForFunction(
    ([maxBitrate, degradationPreference]) => {
      const parameters = probe.kept['output.pc'].getSenders().find(({ track }) => track?.kind === 'video').getParameters();
      return (parameters.encodings[0].maxBitrate ?? null) === maxBitrate && parameters.degradationPreference === degradationPreference;
    },
    [maxBitrate ?? null, degradationPreference],
    { timeout: PATIENCE_MS },
  );

for (const codec of ['vp8', 'h264']) {
  test(`a large picture is sent whole from its first frame on, over ${codec}`, () =>
    withSession(LARGE, async ({ page, connect, heard }) => {
      await connect({ effect: 'face_detection', codec });
      await page.waitForFunction(() => probe.kept['output.detections'].length > 0, null, { timeout: PATIENCE_MS });
      const [{ width, height }] = await heard('detections');
      assert.deepEqual({ width, height }, LARGE);
    }));
}

test('the maximum bitrate follows the size of the picture', () =>
  withSession(LARGE, async ({ page, connect }) => {
    await connect({ effect: 'none' });
    await asked(page, 4_000_000, 'maintain-framerate');
    const become = (width, height) => page.evaluate(([width, height]) => probe.camera.getVideoTracks()[0].applyConstraints({ width: { exact: width }, height: { exact: height } }), [width, height]);
    await become(640, 360);
    await asked(page, undefined, 'maintain-framerate');
    await become(1280, 720);
    await asked(page, 4_000_000, 'maintain-framerate');
  }));

test('where little comes through, smaller pictures are sent', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ooblex-sharp-'));
  const config = join(folder, 'ooblex.toml');
  // Packets beyond the limit are dropped, which the browser sees as a network with a low bandwidth.
  writeFileSync(config, '[limits]\nsession_kbps = 500\n');
  try {
    await withSession({ ...LARGE, gateway: ['--config', config] }, async ({ page, connect }) => {
      await connect({ effect: 'none' });
      await becomes(
        page,
        async (whole) => {
          const sent = [...(await probe.kept['output.pc'].getStats()).values()].find(({ type, kind }) => type === 'outbound-rtp' && kind === 'video');
          probe.looked = `${sent.frameWidth}x${sent.frameHeight} at ${sent.targetBitrate} bit/s, ${sent.framesSent} frames with ${sent.bytesSent} bytes`;
          return sent.frameWidth < whole;
        },
        LARGE.width,
      ).catch(async (error) => assert.fail(`${error.message}; the browser sends ${await page.evaluate(() => probe.looked)}`));
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
