#!/usr/bin/env node
/**
 * Measures how far picture and sound are apart, at the sender's own echo and at a viewer, by effect.
 * `delay:100` is an effect whose model takes 100 ms, `delay:100:400` one that takes 100 and 400 ms
 * in turn, for ten seconds each. Sound counts when it leaves the jitter buffer, as in a recording;
 * the last column is the time that the loudspeaker needs in addition.
 *
 * usage: node sync.js [--cases none,style_transfer@1280x720,delay:400] [--at echo,viewer]
 *   [--warm-up 10] [--seconds 40] [--trace] [--json]
 */

import { parseArgs } from 'node:util';

import { lipSync, quantile } from './lipsync.js';

const { values: asked } = parseArgs({
  options: {
    cases: { type: 'string', default: 'none,background_blur,style_transfer@1280x720,delay:100,delay:400,delay:100:400' },
    at: { type: 'string', default: 'echo,viewer' },
    'warm-up': { type: 'string', default: '10' },
    seconds: { type: 'string', default: '40' },
    json: { type: 'boolean', default: false },
    trace: { type: 'boolean', default: false },
  },
});
const [warmUpMs, measuredMs] = [asked['warm-up'], asked.seconds].map((seconds) => 1000 * Number(seconds));

if (!asked.json) console.log('Picture after its sound, milliseconds (negative: before it)\ncase                      at            p50   p95 of |error|   picture     sound     beeps   loudspeaker');
for (const name of asked.cases.split(',')) {
  const [what, size = '640x480'] = name.split('@');
  const [width, height] = size.split('x').map(Number);
  const [effect, ...pauses] = what.split(':');
  for (const at of asked.at.split(',')) {
    const { device, early, beeps } = await lipSync({ effect, at, pauses: pauses.map(Number), width, height, warmUpMs, measuredMs });
    const p50 = (key) => quantile(beeps.map((one) => one[key]), 0.5);
    const p95 = quantile(beeps.map(({ error }) => Math.abs(error)), 0.95);
    const result = { case: name, at, p50: p50('error'), p95, picture: p50('picture'), sound: p50('sound'), beeps: beeps.length, device };
    if (asked.trace) for (const one of [...early, ...beeps]) console.error(`${(one.at / 1000).toFixed(1).padStart(6)} s: error ${ms(one.error)}, picture ${ms(one.picture)}, sound ${ms(one.sound)}`);
    console.log(asked.json ? JSON.stringify(result) : `${name.padEnd(25)}${at.padEnd(7)}${ms(result.p50, 10)}${ms(p95, 17)}${ms(result.picture, 10)}${ms(result.sound, 10)}${String(beeps.length).padStart(10)}${ms(device, 14)}`);
  }
}

function ms(value, width = 5) {
  return value.toFixed(0).padStart(width);
}
