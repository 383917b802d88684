/**
 * Says in words what is slow, from the gateway's figures and the browser's own, along the way of a frame: camera, uplink, gateway, queue, model,
 * downlink, this browser. Pure.
 */

/** A part keeps up when it passes on at least this share of what reaches it. */
const KEEPS_UP = 0.8;
const MUCH_LOSS = 0.05;
const LONG_ROUND_TRIP_MS = 150;
const LONG_WAIT_MS = 150;
const BEHIND_MS = 250;
/** Frames a second below which a rate is noise. */
const FEW_FPS = 2;
/** Whoever uses this part of the cores that it may use gets fewer frames for it. */
const USED_UP = 0.9;

/** Where the time of a frame goes, ms, in the order of its way; null where nobody can tell. */
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
 * `{part, title, text}`: what holds the picture up most, or `fine`. `askedFps` is what the camera was asked for.
 *
 * @param {object} stats the gateway's, of the last second
 * @param {object} measures the browser's, over the same second
 * @param {number} askedFps
 */
export function diagnose(stats, measures, askedFps = 30) {
  const { camera, sent, received } = measures;
  const fps = (value) => `${Math.round(value)}`;
  const falls = (from, to) => from >= FEW_FPS && to !== null && to !== undefined && to < KEEPS_UP * from;
  const stages = stats.stages_ms ?? {};
  const found = (part, title, text) => ({ part, title, text });

  if (stats.service === 'no_worker') return found('model', 'No worker serves this effect', 'The last picture is held. It goes on by itself when a worker comes.');
  if (stats.service === 'broker_down') return found('queue', 'The gateway has lost the way to its workers', 'The last picture is held. It goes on by itself when they are reached again.');
  if (falls(askedFps, camera.fps)) {
    return found('camera', 'The camera is slow', `It gives ${fps(camera.fps)} of ${fps(askedFps)} frames a second. In the dark cameras expose longer: more light helps, a smaller resolution may as well.`);
  }
  if (sent.limitedBy === 'cpu' || (falls(camera.fps, sent.fps) && sent.limitedBy !== 'bandwidth')) {
    return found('browser', 'This computer is slow at sending', `The browser compresses ${fps(sent.fps ?? 0)} of ${fps(camera.fps ?? 0)} frames a second. Close other programs, or choose a smaller resolution.`);
  }
  const squeezed = sent.limitedBy === 'bandwidth' && (falls(camera.fps, sent.fps) || sent.height < KEEPS_UP * camera.height);
  if (squeezed || sent.lostShare > MUCH_LOSS || falls(sent.fps, stats.fps_in)) {
    const lost = sent.lostShare > MUCH_LOSS ? ` ${Math.round(sent.lostShare * 100)} % of its packets are lost.` : '';
    return found('uplink', 'The way to the gateway is narrow', `The picture is sent with ${megabits(sent.bitrateBps)}.${lost} A better network helps, a smaller resolution may as well.`);
  }
  const frameMs = 1000 / Math.max(stats.fps_in, FEW_FPS);
  // Effects without a model analyse nothing.
  const analyses = stages.analyse !== undefined;
  if ((analyses && falls(stats.fps_in, stats.fps_analysed)) || falls(stats.fps_in, stats.fps_out)) {
    const shown = `${fps(stats.fps_analysed)} of ${fps(stats.fps_in)} frames a second are analysed`;
    if (stats.cores_allowed && stats.cores > USED_UP * stats.cores_allowed) return found('gateway', 'This session has its share of the gateway', `Others are there, and it uses the ${stats.cores_allowed.toFixed(1)} processor cores that are left to it. A smaller resolution gives more frames.`);
    if (!analyses) return found('gateway', 'The gateway is slow', `It shows ${fps(stats.fps_out)} of ${fps(stats.fps_in)} frames a second; compressing and painting take ${ms(pixels(stages))} each. A smaller resolution, or a faster machine, helps.`);
    if ((stages.analyse ?? 0) > 0.8 * frameMs) return found('model', 'The model is slow', `It takes ${ms(stages.analyse)} for a frame, so ${shown}. A smaller resolution in the settings, or a faster machine, helps.`);
    if ((stages.queue ?? 0) > (stages.analyse ?? 0) || stats.worker_utilisation > 0.85) return found('queue', 'The workers are busy', `Frames wait ${ms(stages.queue)} for a worker, so ${shown}. More workers help.`);
    if (pixels(stages) > frameMs) return found('gateway', 'The gateway is slow', `Compressing and painting take ${ms(pixels(stages))} a frame. A smaller resolution, or a faster machine, helps.`);
    return found('model', 'Fewer frames are analysed than come', `${shown[0].toUpperCase()}${shown.slice(1)}; the model takes ${ms(stages.analyse)} for one.`);
  }
  if (pixels(stages) > frameMs) return found('gateway', 'The gateway is slow', `Compressing and painting take ${ms(pixels(stages))} a frame. A smaller resolution, or a faster machine, helps.`);
  if (received.lostShare > MUCH_LOSS || falls(stats.fps_out, received.fps) || received.jitterBufferMs > LONG_WAIT_MS) {
    const lost = received.lostShare > MUCH_LOSS ? `${Math.round(received.lostShare * 100)} % of the packets are lost.` : `${fps(received.fps ?? 0)} of ${fps(stats.fps_out)} frames a second arrive.`;
    return found('downlink', 'The way back is unsteady', `${lost} A better network helps, a smaller resolution may as well.`);
  }
  if (received.droppedFps > 0.1 * (received.fps ?? 0) + 1) return found('browser', 'This computer is slow at showing', 'The browser throws frames away that it has no time for. Close other programs, or choose a smaller resolution.');
  if (measures.roundTripMs > LONG_ROUND_TRIP_MS) return found('network', 'The gateway is far away', `A packet takes ${ms(measures.roundTripMs)} there and back. A nearer gateway helps.`);

  const parts = latencyParts(stats, measures);
  const behind = Object.values(parts).reduce((sum, part) => sum + part, 0);
  if (stats.fps_out < FEW_FPS) return found('none', 'No frames yet', 'The first ones are on their way.');
  const [most] = Object.entries(parts).sort(([, a], [, b]) => b - a);
  const share = behind > 0 ? ` Most of that is ${WORDS[most[0]]} (${ms(most[1])}).` : '';
  if (behind > BEHIND_MS) return found(most[0], 'The picture is late', `It is about ${ms(behind)} behind the camera.${share}`);
  return found('fine', 'Nothing is slow', `${fps(stats.fps_out)} frames a second, about ${ms(behind)} behind the camera.${share}`);
}

const WORDS = { network: 'the network', codec: 'compressing and unpacking', pixels: 'painting', waiting: 'waiting for a worker or a core', model: 'the model' };

function pixels(stages) {
  return ['decode', 'prepare', 'compose', 'encode'].reduce((sum, stage) => sum + (stages[stage] ?? 0), 0);
}

function ms(value) {
  return `${(value ?? 0) < 10 ? (value ?? 0).toFixed(1) : Math.round(value)} ms`;
}

function megabits(bps) {
  return Number.isFinite(bps) ? `${(bps / 1e6).toFixed(1)} Mb/s` : 'few bits';
}
