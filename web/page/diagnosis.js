/**
 * Describes in words what limits the stream, from the statistics of the gateway and the browser,
 * along the path of a frame: camera, uplink, gateway, queue, model, downlink, this browser. Pure.
 */

/** A stage keeps up if it passes on at least this share of its input frames. */
const KEEPS_UP = 0.8;
const MUCH_LOSS = 0.05;
const LONG_ROUND_TRIP_MS = 150;
const LONG_WAIT_MS = 150;
const BEHIND_MS = 250;
/** Frame rate in fps below which a rate counts as noise. */
const FEW_FPS = 2;
/** A session that uses this share of its allowed CPU cores counts as limited by them. */
const USED_UP = 0.9;

/**
 * Returns the latency of a frame by part in ms, in the order of its path; null if it is unknown.
 */
export function latencyParts(stats, measures) {
  const stage = (...names) => names.reduce((sum, name) => sum + (stats?.stages_ms?.[name] ?? 0), 0);
  const { received, roundTripMs } = measures;
  return {
    network: (roundTripMs ?? 0) + (received.jitterBufferMs ?? 0),
    codec: stage('decode', 'encode') + (received.decodeMs ?? 0) + (measures.sent.encodeMs ?? 0),
    pixels: stage('prepare', 'compose'),
    waiting: stage('inbox', 'queue', 'turn', 'playout'),
    model: stage('analyse'),
  };
}

/**
 * Returns `{part, title, text}`: the part that limits the stream most, or `fine`.
 *
 * @param {object} stats the gateway's statistics of the last second
 * @param {object} measures the browser's statistics over the same second
 * @param {{fps?: number, silent?: boolean, muted?: boolean}} source the frame rate requested from the
 *   camera, whether the source delivers no frames, and whether black is sent instead of its picture
 */
export function diagnose(stats, measures, { fps: askedFps = 30, silent = false, muted = false } = {}) {
  const { camera, sent, received } = measures;
  const fps = (value) => `${Math.round(value)}`;
  const falls = (from, to) => from >= FEW_FPS && to !== null && to !== undefined && to < KEEPS_UP * from;
  const stages = stats.stages_ms ?? {};
  const found = (part, title, text) => ({ part, title, text });

  if (stats.service === 'no_worker') return found('model', 'No worker serves this effect', 'The last picture is held. The session resumes by itself when a worker starts.');
  if (stats.service === 'broker_down') return found('queue', 'The gateway cannot reach its workers', 'The last picture is held. The session resumes by itself when they are reachable again.');
  if (silent) return found('silent', 'The source sends no picture', 'The last picture is held. It goes on by itself when the camera, the screen or the file sends again.');
  if (muted) return found('none', 'Your picture is hidden', 'Black is sent instead of it.');
  if (falls(askedFps, camera.fps)) {
    return found('camera', 'The camera is slow', `It delivers ${fps(camera.fps)} of ${fps(askedFps)} frames per second. Cameras expose longer in the dark: add light, or choose a lower resolution.`);
  }
  if (sent.limitedBy === 'cpu' || (falls(camera.fps, sent.fps) && sent.limitedBy !== 'bandwidth')) {
    return found('browser', 'This computer encodes too slowly', `The browser encodes ${fps(sent.fps ?? 0)} of ${fps(camera.fps ?? 0)} frames per second. Close other programs, or choose a lower resolution.`);
  }
  const squeezed = sent.limitedBy === 'bandwidth' && (falls(camera.fps, sent.fps) || sent.height < KEEPS_UP * camera.height);
  if (squeezed || sent.lostShare > MUCH_LOSS || falls(sent.fps, stats.fps_in)) {
    const lost = sent.lostShare > MUCH_LOSS ? ` ${Math.round(sent.lostShare * 100)} % of the packets are lost.` : '';
    return found('uplink', 'The upload is too slow', `The video is sent at ${megabits(sent.bitrateBps)}.${lost} Use a better network, or choose a lower resolution.`);
  }
  const frameMs = 1000 / Math.max(stats.fps_in, FEW_FPS);
  // Effects without a model have no analysis stage.
  const analyses = stages.analyse !== undefined;
  if ((analyses && falls(stats.fps_in, stats.fps_analysed)) || falls(stats.fps_in, stats.fps_out)) {
    const shown = `${fps(stats.fps_analysed)} of ${fps(stats.fps_in)} frames per second are analysed`;
    if (stats.cores_allowed && stats.cores > USED_UP * stats.cores_allowed) return found('gateway', 'This session has used up its share of the CPU', `The gateway has other sessions, and this one uses the ${stats.cores_allowed.toFixed(1)} CPU cores that it may use. Choose a lower resolution for a higher frame rate.`);
    if (!analyses) return found('gateway', 'The gateway is slow', `It sends ${fps(stats.fps_out)} of ${fps(stats.fps_in)} frames per second; encoding and painting take ${ms(pixels(stages))} per frame. Choose a lower resolution, or use a faster machine.`);
    if ((stages.analyse ?? 0) > 0.8 * frameMs) return found('model', 'The model is slow', `It takes ${ms(stages.analyse)} per frame, so ${shown}. Choose a lower resolution in the settings, or use a faster machine.`);
    if ((stages.queue ?? 0) > (stages.analyse ?? 0) || stats.worker_utilisation > 0.85) return found('queue', 'The workers are busy', `Frames wait ${ms(stages.queue)} for a worker, so ${shown}. Start more workers.`);
    if (pixels(stages) > frameMs) return found('gateway', 'The gateway is slow', `Encoding and painting take ${ms(pixels(stages))} per frame. Choose a lower resolution, or use a faster machine.`);
    return found('model', 'Fewer frames are analysed than received', `${shown[0].toUpperCase()}${shown.slice(1)}; the model takes ${ms(stages.analyse)} per frame.`);
  }
  if (pixels(stages) > frameMs) return found('gateway', 'The gateway is slow', `Encoding and painting take ${ms(pixels(stages))} per frame. Choose a lower resolution, or use a faster machine.`);
  if (received.lostShare > MUCH_LOSS || falls(stats.fps_out, received.fps) || received.jitterBufferMs > LONG_WAIT_MS) {
    const lost = received.lostShare > MUCH_LOSS ? `${Math.round(received.lostShare * 100)} % of the packets are lost.` : `${fps(received.fps ?? 0)} of ${fps(stats.fps_out)} frames per second arrive.`;
    return found('downlink', 'The download is unstable', `${lost} Use a better network, or choose a lower resolution.`);
  }
  if (received.droppedFps > 0.1 * (received.fps ?? 0) + 1) return found('browser', 'This computer decodes too slowly', 'The browser drops frames. Close other programs, or choose a lower resolution.');
  if (measures.roundTripMs > LONG_ROUND_TRIP_MS) return found('network', 'High network latency', `The round trip to the gateway takes ${ms(measures.roundTripMs)}. Use a gateway that is nearer.`);

  const parts = latencyParts(stats, measures);
  const behind = Object.values(parts).reduce((sum, part) => sum + part, 0);
  if (stats.fps_out < FEW_FPS) return found('none', 'No frames yet', 'Waiting for the first frames.');
  const [most] = Object.entries(parts).sort(([, a], [, b]) => b - a);
  const share = behind > 0 ? ` Most of that is ${WORDS[most[0]]} (${ms(most[1])}).` : '';
  if (behind > BEHIND_MS) return found(most[0], 'High latency', `The picture is about ${ms(behind)} behind the camera.${share}`);
  return found('fine', 'No problems found', `${fps(stats.fps_out)} frames per second, about ${ms(behind)} behind the camera.${share}`);
}

const WORDS = { network: 'the network', codec: 'encoding and decoding', pixels: 'painting', waiting: 'waiting for a worker or a CPU core', model: 'the model' };

function pixels(stages) {
  return ['decode', 'prepare', 'compose', 'encode'].reduce((sum, stage) => sum + (stages[stage] ?? 0), 0);
}

function ms(value) {
  return `${(value ?? 0) < 10 ? (value ?? 0).toFixed(1) : Math.round(value)} ms`;
}

function megabits(bps) {
  return Number.isFinite(bps) ? `${(bps / 1e6).toFixed(1)} Mb/s` : 'a low bitrate';
}
