/**
 * Tests detections as data: they are where the boxes are drawn, and the same on the data channel
 * and over HTTP.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { PATIENCE_MS, withSession } from './harness.js';

/**
 * A drawn box has integer coordinates, and passed through a codec that halves the resolution of
 * colours.
 */
const SAME_PLACE = 2;
const FRAMES = 60;

test('detections lie where the frame with their timestamp has the box, and are those of the event stream', () =>
  withSession({}, async ({ page, connect, moreFrames, seen, heard, close }) => {
    const id = await connect({ effect: 'face_detection', params: { labels: false, keypoints: false } });
    await page.evaluate((id) => {
      probe.watch('boxes', probe.kept.output.output.getVideoTracks()[0].clone(), 'box');
      const read = (probe.kept.read = []);
      const stream = probe.keep('stream', new EventSource(`/api/sessions/${id}/events`));
      for (const name of ['detections', 'stats', 'end']) stream.addEventListener(name, ({ data, lastEventId }) => read.push({ name, id: lastEventId, ...JSON.parse(data) }));
      stream.addEventListener('end', () => stream.close());
      return new Promise((resolve) => stream.addEventListener('open', resolve, { once: true }));
    }, id);
    await moreFrames(FRAMES, 'boxes');
    const [records, told] = [await seen('boxes'), await heard('detections')];

    const byTimestamp = new Map(told.map((event) => [event.timestamp, event]));
    const drawn = records.filter(({ rtp, box }) => box && byTimestamp.has(rtp)).map((record) => ({ ...record, event: byTimestamp.get(record.rtp) }));
    assert.ok(drawn.length >= FRAMES / 2, `only ${drawn.length} of ${records.length} frames have a box and an event`);
    const away = drawn.map(({ box, width, event }) => {
      assert.equal(event.faces.length, 1);
      assert.equal(event.faces[0].label, 'face');
      return Math.max(...event.faces[0].box.map((side, index) => Math.abs((side * width) / event.width - box[index])));
    });
    assert.ok(Math.max(...away) <= SAME_PLACE, `boxes are drawn up to ${Math.max(...away)} px from where events say`);

    await close();
    await page.waitForFunction(() => probe.kept.read.some(({ name }) => name === 'end'), null, { timeout: PATIENCE_MS });
    const read = (await page.evaluate(() => probe.kept.read)).filter(({ name }) => name === 'detections');
    const bySequence = new Map((await heard('detections')).map((event) => [event.sequence, event]));
    const both = read.filter(({ sequence }) => bySequence.has(sequence));
    assert.ok(both.length >= FRAMES / 2, `only ${both.length} of ${read.length} events came both ways`);
    for (const { id, sequence, timestamp, faces } of both) {
      assert.deepEqual({ id, timestamp, faces }, { id: String(sequence), timestamp: bySequence.get(sequence).timestamp, faces: bySequence.get(sequence).faces });
    }
  }));
