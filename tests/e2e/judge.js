/**
 * Assertions on the frames that came back.
 *
 * Owns the thresholds and the reasons for them. Refuses to know how frames are obtained. A record
 * is the data that probe.js keeps of a frame; the truth is the data of clip.js and of the same
 * measure about the clip.
 */

import assert from 'node:assert/strict';

/**
 * The weakest blur leaves 0.5 to 4 % of the energy of the background's edges; the codecs at the
 * lowest bitrate of the first second leave 60 % or more.
 */
const HIDDEN_ENERGY = 0.2;
/**
 * A picture that only passed through codecs differs by 1 to 4 (of 255) from the clip, in the means
 * of 32x24 blocks; a painted one by 15 or more.
 */
const SAME_THUMB = 6;
const PAINTED_THUMB = 10;
/**
 * Minimum share of the outline around the face on which a drawn box is found; without a box it is
 * 0. The box of an earlier frame, which is painted when workers are slow, lies beside a part of it.
 */
const FRAMED = 0.4;
/**
 * Maximum age of a box in frames of the clip: when workers are slow, `face_detection` paints the box
 * of an earlier frame, for 200 ms.
 */
const OLDEST_FRAMES = 6;

/**
 * Returns how a frame hides the camera's picture: 'blurred', 'painted' or 'framed'; null for an
 * unprocessed frame.
 */
export function hiddenBy(record, played) {
  if (record.outline >= FRAMED) return 'framed';
  if (energyShare(record, played) <= HIDDEN_ENERGY) return 'blurred';
  return thumbDistance(record, played) >= PAINTED_THUMB ? 'painted' : null;
}

/** Asserts that every frame, from the first one on, is hidden in one of these ways. */
export function assertHidden(records, played, ways) {
  const bare = records.map((record, index) => ({ index, how: hiddenBy(record, played), ...figures(record, played) })).filter(({ how }) => !ways.includes(how));
  assert.deepEqual(bare, [], `${bare.length} of ${records.length} frames were not ${ways.join(' or ')}`);
}

/**
 * Asserts that capture times and numbers only increase, and that nearly all numbers are readable.
 * Two frames may come twice: the clip's first, because Chromium's fake camera plays it twice when
 * the clip restarts, and the first of a session, because on a slow machine a placeholder of the frame
 * that waits is sent before its processed picture. Returns the unwrapped numbers, null for an
 * unreadable one.
 */
export function assertInOrder(records, played, { readable = 0.9 } = {}) {
  const numbers = unwrapped(records, played.layout.loop);
  const read = numbers.filter((number) => number !== null);
  assert.ok(read.length >= readable * records.length, `only ${read.length} of ${records.length} numbers could be read`);
  const twice = (number) => number === read[0] || number % played.layout.loop === 0;
  const back = read.map((number, index) => [read[index - 1], number]).filter(([before, number]) => number < before || (number === before && !twice(number)));
  assert.deepEqual(back, [], 'numbers that did not go up');
  const early = records.filter(({ rtp }, index) => index > 0 && ((rtp - records[index - 1].rtp) | 0) <= 0);
  assert.deepEqual(early, [], 'frames whose capture time did not go up');
  return numbers;
}

/** Asserts that at least this share of the camera's frames during that time was shown. */
export function assertShareShown(records, camera, played, share) {
  const [first, last] = [records[0].t, records.at(-1).t];
  const taken = camera.filter(({ t }) => t >= first && t <= last).length;
  const distinct = new Set(unwrapped(records, played.layout.loop).filter((number) => number !== null)).size;
  assert.ok(distinct >= share * taken, `${distinct} frames were shown of ${taken} taken in ${Math.round(last - first)} ms`);
}

/** Asserts that frames have this ratio of width to height. */
export const assertShape = (records, shape) => assert.deepEqual(records.filter(({ width, height }) => Math.abs(width / height / shape - 1) > 0.015).map(({ width, height }) => `${width}x${height}`), [], 'frames of another shape');

/** Asserts that every frame has the camera's size. */
export function assertSize(records, width, height) {
  const others = new Set(records.map((record) => `${record.width}x${record.height}`));
  assert.deepEqual([...others], [`${width}x${height}`]);
}

/** Asserts that the frames with a number are the clip's own pictures. */
export function assertUntouched(records, played) {
  const changed = records.filter(({ number }) => number !== null).map((record, index) => ({ index, ...figures(record, played) })).filter(({ distance }) => !(distance <= SAME_THUMB));
  assert.deepEqual(changed, [], `${changed.length} of ${records.length} frames differ from the camera's`);
}

/**
 * Asserts that the reported boxes are on the face: each side within a tenth of the box's size of
 * its position in that frame, or in one of the frames whose box may be painted on it.
 */
export function assertOnFace(detections, records, played) {
  const byTimestamp = new Map(records.filter(({ rtp, number }) => rtp !== null && number !== null).map(({ rtp, number }) => [rtp, number]));
  const told = detections.map(({ timestamp, faces }) => ({ number: byTimestamp.get(timestamp), faces })).filter(({ number }) => number !== undefined);
  assert.ok(told.length >= 10, `only ${told.length} of ${detections.length} detections belong to a frame that came back`);
  for (const { number, faces } of told) {
    assert.equal(faces.length, 1, `there is one face in frame ${number}`);
    const { face } = played.truth[number];
    const offAt = (age) => boxDistance(faces[0].box, played.truth[(number - age + played.layout.loop) % played.layout.loop].face);
    const off = Math.min(...Array.from({ length: OLDEST_FRAMES + 1 }, (_, age) => offAt(age)));
    assert.ok(off <= 0.1, `in frame ${number} the box ${faces[0].box.map(Math.round)} is ${Math.round(off * 100)} % of the face's size away from ${face.map(Math.round)}`);
  }
  return told.length;
}

/** Returns the largest distance between two sides, as a share of the width of the second box. */
function boxDistance(box, face) {
  return Math.max(...box.map((side, index) => Math.abs(side - face[index]))) / (face[2] - face[0]);
}

/**
 * Returns numbers that continue when the loop restarts. The elapsed time decides, so a gap may be
 * longer than a loop.
 */
export function unwrapped(records, loop, fps = 30) {
  let before = null;
  return records.map(({ number, t }) => {
    if (number === null) return null;
    if (before === null) {
      before = { number, t };
      return number;
    }
    const expected = before.number + ((t - before.t) * fps) / 1000;
    const turns = Math.round((expected - number) / loop);
    before = { number: number + turns * loop, t };
    return before.number;
  });
}

/** Returns the measurements that decide about a frame. */
export function figures(record, played) {
  return { number: record.number, energy: round(energyShare(record, played)), distance: round(thumbDistance(record, played)), outline: round(record.outline) };
}

function energyShare({ number, energy }, { truth }) {
  return energy / (number === null ? Math.min(...truth.map((frame) => frame.energy)) : truth[number].energy);
}

/**
 * Returns the mean difference from the frame of the clip with this number, or from the most similar
 * frame if the number cannot be read.
 */
function thumbDistance({ number, thumb }, { truth }) {
  const mine = Buffer.from(thumb, 'base64');
  const from = (theirs) => mine.reduce((sum, value, index) => sum + Math.abs(value - theirs[index]), 0) / mine.length;
  return number === null ? Math.min(...truth.map((frame) => from(frame.thumb))) : from(truth[number].thumb);
}

function round(value) {
  return Math.round(value * 1000) / 1000;
}
