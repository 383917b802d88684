/**
 * Tests each effect with each codec: the frames that come back are in order, of the camera's size,
 * fresh, and processed from the first frame on.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { open } from './harness.js';
import { assertHidden, assertInOrder, assertOnFace, assertShareShown, assertSize, assertUntouched, hiddenBy } from './judge.js';

/** Number of frames that are judged for each effect. */
const FRAMES = 90;
/**
 * `ways` are the ways in which a frame may hide the camera's picture; `share` is the minimum share
 * of the camera's frames that must be shown, with a margin for a busy machine. The style keeps dark
 * areas dark and light areas light, so that the numbers stay readable.
 */
const EFFECTS = [
  { effect: 'background_blur', params: {}, ways: ['blurred'], share: 0.5 },
  { effect: 'background_blur', params: { strength: 0 }, ways: ['blurred'], share: 0.5 },
  { effect: 'face_detection', params: {}, ways: ['framed', 'painted'], share: 0.5 },
  { effect: 'style_transfer', params: { style: 'crimson_poster', resolution: '180p' }, ways: ['painted'], share: 0.1 },
  { effect: 'none', params: {}, ways: null, share: 0.5 },
];

let session;
before(async () => (session = await open({})));
after(() => session?.end());

for (const codec of ['vp8', 'h264']) {
  for (const { effect, params, ways, share } of EFFECTS) {
    test(`${effect} ${JSON.stringify(params)} over ${codec}`, async () => {
      const { played, connect, moreFrames, seen, heard, codecs, close } = session;
      await connect({ effect, params, codec });
      await moreFrames(FRAMES);
      const [records, camera, detections] = [await seen(), await seen('source'), await heard('detections')];
      assert.deepEqual(await codecs(), [codec, codec], 'the codec in both directions');
      await close();

      assertInOrder(records, played);
      assertShareShown(records, camera, played, share);
      assertSize(records, played.width, played.height);
      if (ways) assertHidden(records, played, ways);
      else {
        assertUntouched(records, played);
        // Control: the check recognises an unprocessed frame.
        assert.deepEqual([...new Set(records.map((record) => hiddenBy(record, played)))], [null]);
      }
      if (effect === 'face_detection') assertOnFace(detections, records, played);
    });
  }
}

test('while a slow model has not given its first result, a placeholder hides everything', async () => {
  const { played, connect, moreFrames, seen, close } = session;
  await connect({ effect: 'style_transfer', params: { style: 'crimson_poster', resolution: '360p' } });
  await moreFrames(10);
  assertHidden(await seen(), played, ['painted', 'blurred']);
  await close();
});
