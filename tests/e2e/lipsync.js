/**
 * Measures how far picture and sound are apart at a receiver, the lip-sync error: the time from the
 * camera's track to the display, less the time from the microphone's track to the speaker's track.
 * Positive: the picture comes later than its sound.
 *
 * The numbers on the frames of the clip and beeps in place of the microphone are noted at the tracks
 * of the sender and again at the receiver, in the same page and so by the same clock. Only what lies
 * between counts; an offset of the sender does not.
 *
 * Owns the session, the beeps, their detection and the comparison. Refuses to know what is good.
 */

import { becomes, withSession } from './harness.js';
import { prepare } from './whip.js';

/** The longest latency that is believed: the numbers of frames and the tones of beeps repeat. */
const LONGEST_MS = 1900;
/** Frames that were displayed within this time of a beep, before or after it, are compared with it. */
const NEAR_MS = 300;

/** Time for which an effect with several pauses keeps each of them. */
const PAUSE_MS = 10_000;

/**
 * Opens a session with this effect and compares what it receives. `at`: 'echo', the sender itself,
 * or 'viewer', who watches its room. `pauses`: milliseconds that the model of the effect `delay`
 * takes; several are taken in turn. Returns the result of `compared` for the time after the first
 * `warmUpMs`, as `beeps`, what it was before, as `early`, and `device`, the milliseconds from the
 * speaker's track to the loudspeaker.
 */
export async function lipSync({ effect, at, pauses = [], width = 640, height = 480, warmUpMs, measuredMs }) {
  // A worker sleeps for the pause, so several are needed for all frames.
  const gateway = pauses.length ? ['--diagnostics', '--effects', 'delay', '--workers', '16'] : [];
  return withSession({ width, height, gateway }, async (session) => {
    const { page } = session;
    await page.evaluate(`Object.assign(globalThis, { beep: ${beep}, hear: ${hear}, receive: ${receive}, playoutDelay: ${playoutDelay} })`);
    await page.evaluate(() => beep());
    const params = (turn) => (pauses.length ? { ms: pauses[turn % pauses.length] } : {});
    const { connection, change } = await (at === 'echo' ? echoed : viewed)(session, effect, params(0));
    await page.evaluate((connection) => receive(connection), connection);
    await becomes(page, () => probe.seen.displayed.some(({ number }) => number !== null) && probe.seen.heard.length > 0);
    const start = await page.evaluate(() => performance.now());
    const all = warmUpMs + measuredMs;
    for (let elapsed = 0, turn = 1; elapsed < all; elapsed += PAUSE_MS, turn++) {
      await page.waitForTimeout(Math.min(PAUSE_MS, all - elapsed));
      if (pauses.length > 1) await change(params(turn));
    }
    const { notes, device, ...taken } = await page.evaluate(async (connection) => {
      const { source, displayed, beeps, heard } = probe.seen;
      return { source, displayed, beeps, heard, notes: probe.notes, device: await playoutDelay(connection) };
    }, connection);
    if (notes.length) throw new Error(notes.join('\n'));
    const beeps = compared(taken).map((one) => ({ ...one, at: one.at - start }));
    return { device, early: beeps.filter((one) => one.at < warmUpMs), beeps: beeps.filter((one) => one.at >= warmUpMs) };
  });
}

/** Opens a session that sends and receives. Returns the name of its connection, and how its parameters are changed. */
async function echoed({ connect, changeEffect, moreFrames }, effect, params) {
  await connect({ effect, params });
  await moreFrames(10);
  return { connection: 'output.pc', change: (params) => changeEffect(effect, params) };
}

/** Publishes to a room and watches it. Returns the same. */
async function viewed({ page }, effect, params) {
  await prepare(page);
  const query = new URLSearchParams({ effect, params: JSON.stringify(params) });
  await page.evaluate((query) => publish('studio', `?${query}`), `${query}`);
  const id = await becomes(page, async () => {
    const { sessions } = await (await fetch('/api/sessions')).json();
    return sessions.find(({ room, stats }) => room === 'studio' && stats?.fps_out > 1)?.id;
  });
  await page.evaluate(async () => {
    const connection = new RTCPeerConnection();
    for (const kind of ['video', 'audio']) connection.addTransceiver(kind, { direction: 'recvonly' });
    probe.keep('viewer', connection);
    await exchange(connection, '/whep/studio');
  });
  const patch = ([id, body]) => fetch(`/api/sessions/${id}`, { method: 'PATCH', headers: { 'Content-Type': 'application/json' }, body }).then(({ status }) => status);
  const change = async (params) => {
    const status = await page.evaluate(patch, [id, JSON.stringify({ effect, params })]);
    if (status !== 200) throw new Error(`the change was answered with ${status}`);
  };
  return { connection: 'viewer', change };
}

/** Runs in the page: sends beeps as sound, one a second, of two tones in turn. */
function beep() {
  const context = new AudioContext({ sampleRate: 48_000, latencyHint: 0 });
  const buffer = context.createBuffer(1, 2 * 48_000, 48_000);
  const samples = buffer.getChannelData(0);
  for (const [second, hz] of [500, 1500].entries()) {
    for (let at = 0; at < 0.06 * 48_000; at++) samples[second * 48_000 + at] = 0.5 * Math.sin((2 * Math.PI * hz * (at + 0.5)) / 48_000);
  }
  const source = new AudioBufferSourceNode(context, { buffer, loop: true });
  const out = context.createMediaStreamDestination();
  source.connect(out);
  source.start();
  probe.keep('context', context);
  probe.camera = new MediaStream([...probe.camera.getVideoTracks(), ...out.stream.getAudioTracks()]);
  hear('beeps', out.stream.getAudioTracks()[0].clone(), false);
}

/**
 * Runs in the page: notes each beep on a track as `{t, high}`. Blocks of samples come in bursts, so
 * the clock of a track is its number of samples, from the block that came earliest within a second.
 * `isPlayed`: a block that comes is being played from its beginning on; otherwise it has just been
 * recorded to its end.
 */
function hear(name, track, isPlayed) {
  const beeps = (probe.seen[name] = []);
  const reader = new MediaStreamTrackProcessor({ track, maxBufferSize: 200 }).readable.getReader();
  const starts = [];
  let [position, quiet, beep] = [0, 0, null];
  const next = async () => {
    for (;;) {
      const { value: block, done } = await reader.read();
      if (done) return;
      const { numberOfFrames: length, sampleRate } = block;
      const samples = new Float32Array(length);
      block.copyTo(samples, { planeIndex: 0, format: 'f32-planar' });
      block.close();
      starts.push(performance.now() - (1000 * (position + (isPlayed ? 0 : length))) / sampleRate);
      if (starts.length > 100) starts.shift();
      const start = Math.min(...starts);
      for (let at = 0; at < length; at++, position++) {
        const isLoud = Math.abs(samples[at]) > 0.05;
        if (isLoud && quiet > 0.3 * sampleRate) {
          beep = { t: start + (1000 * position) / sampleRate, began: position, signs: 0, sign: 0 };
        }
        quiet = isLoud ? 0 : quiet + 1;
        if (!beep) continue;
        const sign = isLoud ? Math.sign(samples[at]) : beep.sign;
        if (sign !== beep.sign) beep.signs++;
        beep.sign = sign;
        // 20 ms have 20 half waves of the low tone and 60 of the high one.
        if (position - beep.began < 0.02 * sampleRate) continue;
        beeps.push({ t: beep.t, high: beep.signs > 40 });
        beep = null;
      }
    }
  };
  next().catch((error) => probe.notes.push(`${name}: ${error}`));
}

/** Runs in the page: plays what a connection receives. */
function receive(name) {
  const receivers = probe.kept[name].getReceivers().filter(({ track }) => ['audio', 'video'].includes(track.kind));
  const tracks = receivers.map(({ track }) => track);
  const video = Object.assign(document.createElement('video'), { autoplay: true, srcObject: new MediaStream(tracks) });
  document.body.append(video);
  // Chromium shows no frame to a callback that was registered long before the first one.
  probe.seen.displayed = [];
  video.addEventListener('loadeddata', () => probe.watch('displayed', video, 'number'), { once: true });
  hear('heard', tracks.find(({ kind }) => kind === 'audio'), true);
}

/** Runs in the page: returns the mean time from the receivers of a connection to the loudspeaker. */
async function playoutDelay(name) {
  const stats = [...(await probe.kept[name].getStats()).values()].find(({ type }) => type === 'media-playout');
  return stats?.totalSamplesCount ? (1000 * stats.totalPlayoutDelay) / stats.totalSamplesCount : 0;
}

/**
 * Returns `{error, picture, sound, at}` in milliseconds for each beep that was heard. Sound counts when the jitter buffer releases it, as a
 * recording has it; a loudspeaker plays it later.
 */
function compared({ source, displayed, beeps, heard }) {
  const latencyOf = (sent, isSame, at) => at - (sent.findLast((one) => isSame(one) && one.t <= at && one.t > at - LONGEST_MS)?.t ?? NaN);
  const pictures = displayed.filter(({ number }) => number !== null).map(({ number, displayed: at }) => ({ at, latency: latencyOf(source, (one) => one.number === number, at) }));
  return heard.flatMap(({ t: at, high }) => {
    const near = pictures.filter((one) => Math.abs(one.at - at) < NEAR_MS).map(({ latency }) => latency);
    const [picture, sound] = [quantile(near, 0.5), latencyOf(beeps, (one) => one.high === high, at)];
    return !Number.isFinite(picture - sound) ? [] : [{ at, error: picture - sound, picture, sound }];
  });
}

/** Returns a quantile; NaN if there are no values. */
export function quantile(values, share) {
  const sorted = values.filter(Number.isFinite).toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN;
}
