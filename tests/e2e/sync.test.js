/**
 * Tests that picture and sound come in sync, whatever the effect takes, and while that changes.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { lipSync, quantile } from './lipsync.js';

/** Usually the picture is at most this late. Without the delay of the sound it would be 200 and 340 ms. */
const USUALLY_LATE_MS = 40;
/** It is later only in the seconds after a sudden change of its latency. */
const LATE_MS = 100;
/**
 * Usually the picture is at most this early. A browser on a busy machine, or that has just begun, adds
 * a jitter buffer of its own to the sound, of up to 100 ms; `sync.js` measures what is left otherwise.
 */
const USUALLY_EARLY_MS = 150;

const WARM_UP_MS = 12_000;

for (const { at, pauses, measuredMs, most } of [
  { at: 'echo', pauses: [400], measuredMs: 12_000, most: 0.9 },
  { at: 'viewer', pauses: [250], measuredMs: 12_000, most: 0.9 },
  // The model changes three times, by 300 ms; each time two beeps of ten may be off.
  { at: 'echo', pauses: [100, 400], measuredMs: 30_000, most: 0.75 },
]) {
  test(`sound comes with its picture, ${at}, model of ${pauses.join(' and ')} ms`, async (t) => {
    const { beeps } = await lipSync({ effect: 'delay', at, pauses, warmUpMs: WARM_UP_MS, measuredMs });
    const [usual, picture] = ['error', 'picture'].map((key) => quantile(beeps.map((one) => one[key]), 0.5));
    const latest = quantile(beeps.map(({ error }) => error), most);
    t.diagnostic(`${beeps.length} beeps, p50 ${Math.round(usual)} ms, ${100 * most} % at most ${Math.round(latest)} ms, picture after ${Math.round(picture)} ms`);
    assert.ok(beeps.length > 0.7 * (measuredMs / 1000), `only ${beeps.length} beeps were compared`);
    assert.ok(picture > Math.min(...pauses), 'the picture is delayed');
    assert.ok(usual <= USUALLY_LATE_MS && usual >= -USUALLY_EARLY_MS, `${usual} ms`);
    assert.ok(latest <= LATE_MS, `${latest} ms`);
  });
}
