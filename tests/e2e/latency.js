#!/usr/bin/env node
/**
 * Measures the latency that the gateway adds, as seen by a browser.
 *
 * It is measured in one page, from the frame on the camera's track to the frame with the same
 * number on the received track: once over two connections inside the page (the baseline: Chromium's
 * own encoder, pacer, jitter buffer and decoder), once through the gateway. Baseline and effects
 * alternate, and each effect is compared with the baselines directly before and after it, so that a
 * machine whose speed changes does not affect the result. Frames are read directly from the tracks,
 * because a video element would round to the screen's refresh rate.
 *
 * usage: node latency.js [--effects a,b] [--seconds 6] [--rounds 2] [--size 640x480] [--json]
 */

import { parseArgs } from 'node:util';

import { withSession } from './harness.js';

const PARAMS = { style_transfer: { resolution: '216p' } };
const WARM_UP_MS = 3_000;

const { values: asked } = parseArgs({
  options: {
    effects: { type: 'string', default: 'background_blur,face_detection,style_transfer,none' },
    seconds: { type: 'string', default: '6' },
    rounds: { type: 'string', default: '2' },
    size: { type: 'string', default: '640x480' },
    json: { type: 'boolean', default: false },
  },
});

const [width, height] = asked.size.split('x').map(Number);
const result = await withSession({ width, height }, measured);
if (asked.json) console.log(JSON.stringify(result, null, 2));
else print(result);

async function measured(session) {
  const effects = asked.effects.split(',');
  const runs = Object.fromEntries(effects.map((effect) => [effect, []]));
  const floors = [await floor(session)];
  for (let round = 0; round < Number(asked.rounds); round++) {
    for (const effect of effects) {
      const run = await through(session, effect);
      const [before, after] = [floors.at(-1), await floor(session)];
      floors.push(after);
      runs[effect].push({ ...run, floor: [...before.latencies, ...after.latencies] });
    }
  }
  return {
    size: asked.size,
    floor: percentiles(floors.flatMap(({ latencies }) => latencies)),
    effects: Object.fromEntries(Object.entries(runs).map(([effect, list]) => [effect, summary(list)])),
  };
}

/** Returns the latencies of a call inside the page. */
async function floor({ page, seen }) {
  await page.evaluate(async () => {
    const [from, to] = [new RTCPeerConnection(), new RTCPeerConnection()];
    from.onicecandidate = ({ candidate }) => candidate && to.addIceCandidate(candidate);
    to.onicecandidate = ({ candidate }) => candidate && from.addIceCandidate(candidate);
    to.ontrack = ({ track, receiver }) => {
      receiver.jitterBufferTarget = 0;
      receiver.playoutDelayHint = 0;
      probe.watch('floor', track, 'number');
    };
    const [track] = probe.camera.getVideoTracks();
    track.contentHint = 'motion';
    const line = from.addTransceiver(track, { direction: 'sendonly', streams: [probe.camera] });
    line.setCodecPreferences(RTCRtpReceiver.getCapabilities('video').codecs.filter(({ mimeType }) => /VP8|rtx/.test(mimeType)));
    await from.setLocalDescription();
    await to.setRemoteDescription(from.localDescription);
    await to.setLocalDescription();
    await from.setRemoteDescription(to.localDescription);
    probe.keep('floor.end', () => [from, to].forEach((end) => end.close()));
  });
  const run = await segment(page, seen, 'floor');
  await page.evaluate(() => {
    probe.kept['floor.end']();
    delete probe.seen.floor;
  });
  return run;
}

/** Returns the latencies through the gateway. */
async function through({ page, seen, connect, close, heard }, effect) {
  await connect({ effect, params: PARAMS[effect], codec: 'vp8' });
  const run = await segment(page, seen, 'output');
  const stats = (await heard('stats')).at(-1);
  await close();
  return { ...run, analysed: stats?.fps_analysed ?? null, residence: stats?.residence_ms ?? null };
}

/** Measures a track for the given time, after the encoder's bitrate has had time to rise. */
async function segment(page, seen, name) {
  await page.waitForFunction((name) => probe.seen[name]?.length > 0, name);
  await page.waitForTimeout(WARM_UP_MS);
  const start = await page.evaluate(() => performance.now());
  await page.waitForTimeout(1000 * Number(asked.seconds));
  const shown = (await seen(name)).filter(({ t }) => t >= start);
  const taken = await seen('source');
  const latencies = [];
  let from = 0;
  for (const { number, t } of shown.filter(({ number }) => number !== null)) {
    // Finds the newest frame of the camera with this number that is older than the shown one.
    while (from + 1 < taken.length && taken[from + 1].t <= t) from++;
    for (let at = from; at >= 0 && t - taken[at].t < 3_000; at--) {
      if (taken[at].number === number) {
        latencies.push(t - taken[at].t);
        break;
      }
    }
  }
  const last = shown.at(-1);
  return { latencies, fps: (shown.length * 1000) / (last.t - shown[0].t), size: `${last.width}x${last.height}`, unread: shown.filter(({ number }) => number === null).length };
}

function summary(list) {
  const own = percentiles(list.flatMap(({ latencies }) => latencies));
  const floor = percentiles(list.flatMap(({ floor }) => floor));
  const mean = (pick) => list.reduce((sum, run) => sum + pick(run), 0) / list.length;
  return {
    ...own,
    floor,
    over: { p50: own.p50 - floor.p50, p95: own.p95 - floor.p95 },
    fps: mean(({ fps }) => fps),
    analysed: list.at(-1).analysed,
    residence: list.at(-1).residence,
    size: list.at(-1).size,
    unread: list.reduce((sum, { unread }) => sum + unread, 0),
  };
}

function percentiles(latencies) {
  const sorted = latencies.toSorted((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN;
  return { p50: at(0.5), p95: at(0.95), frames: sorted.length };
}

function print({ size, floor, effects }) {
  const ms = (value, sign = '') => `${value >= 0 ? sign : ''}${value.toFixed(1)}`.padStart(8);
  console.log(`Latency from the camera's track to the received track, ${size}, VP8, milliseconds`);
  console.log(`${''.padEnd(18)}     p50     p95   over the floor     fps  received  unread`);
  console.log(`${'(the floor)'.padEnd(18)}${ms(floor.p50)}${ms(floor.p95)}`);
  for (const [effect, { p50, p95, over, fps, size: received, unread }] of Object.entries(effects)) {
    console.log(`${effect.padEnd(18)}${ms(p50)}${ms(p95)}${ms(over.p50, '+')}${ms(over.p95, '+')}${ms(fps)}  ${received.padStart(8)}${String(unread).padStart(8)}`);
  }
}
