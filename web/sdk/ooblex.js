/**
 * Ooblex in the browser: the camera goes to a gateway, the picture with the effect comes back.
 *
 * Owns one session: the camera (when it opened it), the WebRTC connection, the control channel, and the errors that all of
 * these can end in. Refuses to know pages and elements, and what any effect means. No dependencies, and one file on purpose: a
 * page of another host takes it with one import.
 *
 * `connect` builds a `Link` (one connection, thrown away when it breaks) and wraps it in a `Session` (what the caller keeps).
 * Reconnecting will be a session that gets itself another link.
 */

const CONNECT_TIMEOUT_MS = 10_000;
const ACK_TIMEOUT_MS = 5_000;
const CAMERA = { video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } }, audio: false };

/** What each code means when nothing more is known. A detail says what to do about it. */
const DETAILS = {
  'insecure-context': 'Browsers give the camera to secure pages only: open this page through https, or through http://localhost on the gateway itself.',
  'no-camera': 'No camera was found: plug one in, or check that the system shows it.',
  'permission-denied': 'The camera was not allowed. Allow it for this site in the address bar or the system settings, then try again.',
  'camera-busy': 'The camera is there but does not start: another program may be using it. Close that program, then try again.',
  'gateway-unreachable': 'The gateway does not answer: check that it runs and that its address is right.',
  'offer-rejected': 'The gateway refused the connection.',
  'connection-failed': 'The gateway answered, but no media came through. Usually its UDP media port is closed by a firewall or not published by the container, or the address that it advertises cannot be reached from here.',
  'effect-rejected': 'The gateway refused this effect or its parameters.',
  'gateway-error': 'The gateway reported a problem.',
  closed: 'The session has ended: connect again.',
  timeout: 'The gateway did not confirm the change in time. It confirms with the first frame that has it: is the camera still sending, and does a worker serve the effect?',
};

/** Every error that this module throws or emits, except wrong arguments (TypeError) and an abort by the caller's signal. */
export class OoblexError extends Error {
  /**
   * @param {string} code one of the stable codes in ooblex.d.ts
   * @param {{detail?: string, problem?: object, cause?: unknown}} [about]
   */
  constructor(code, { detail, problem = null, cause } = {}) {
    const text = detail ?? problem?.detail ?? DETAILS[code];
    super(text, cause === undefined ? undefined : { cause });
    this.name = 'OoblexError';
    this.code = code;
    this.detail = text;
    this.problem = problem;
  }
}

/** Opens a session. Resolves when media flows and the control channel is open; the first picture may be a moment away. */
export async function connect({ url, effect, params, source, codec, signal, timeoutMs = CONNECT_TIMEOUT_MS } = {}) {
  const base = gatewayBase(url);
  const ownsInput = !isStream(source);
  const input = ownsInput ? await openCamera(source, { signal }) : source;
  try {
    const link = await Link.open({ base, input, effect, params, codec, signal, timeoutMs });
    return new Session(link, { base, input, ownsInput, effect, params });
  } catch (error) {
    if (ownsInput) stopTracks(input);
    throw error;
  }
}

/** The effects of a gateway, with their parameters, and whether each is available now. */
export async function effects(url, { signal } = {}) {
  return call(new URL('api/effects', gatewayBase(url)), { signal }, 'gateway-error');
}

/** Opens the camera (640×480 at 30 frames a second unless told otherwise, no sound) with errors of this module. */
export async function openCamera(constraints = CAMERA, { signal } = {}) {
  signal?.throwIfAborted();
  const devices = globalThis.navigator?.mediaDevices;
  if (!globalThis.isSecureContext || !devices) throw new OoblexError('insecure-context');
  let stream;
  try {
    stream = await devices.getUserMedia(constraints);
  } catch (cause) {
    throw cameraError(cause);
  }
  if (signal?.aborted) {
    stopTracks(stream);
    signal.throwIfAborted();
  }
  return stream;
}

/** The value of every parameter when none is given, from an effect's `parameters`. */
export function defaults(schema) {
  const properties = Object.entries(schema?.properties ?? {});
  return Object.fromEntries(properties.filter(([, p]) => 'default' in p).map(([name, p]) => [name, structuredClone(p.default)]));
}

export const Ooblex = { connect, effects, openCamera, defaults };

/** What `connect` gives: the pictures, the effect, and the events of one session. */
export class Session extends EventTarget {
  #link;
  #base;
  #input;
  #ownsInput;
  #state = 'live';
  #confirmed;
  #wanted;
  #earlier = null;
  #service = { effect: null, state: 'served' };
  #leave = () => void this.close();
  #inputEnded = () => this.#emit('error', new OoblexError('no-camera', { detail: 'The camera stopped: was it unplugged or taken away? Give the session another source.' }));

  /** Sessions come from `connect`. */
  constructor(link, { base, input, ownsInput, effect, params }) {
    super();
    this.#link = link;
    this.#base = base;
    this.#confirmed = this.#wanted = { effect: effect ?? link.answer.effect ?? null, params: params ?? {} };
    this.#adopt(input, ownsInput);
    link.listen({
      stats: (stats) => {
        if (!this.#wanted.effect) this.#confirmed = this.#wanted = { effect: stats.effect, params: {} };
        if (stats.service) this.#serve(stats.effect, stats.service);
        this.#emit('stats', stats);
      },
      service: ({ effect, state }) => this.#serve(effect, state),
      detections: (detections) => this.#emit('detections', detections),
      error: (error) => this.#emit('error', error),
      state: (state) => this.#become(state),
      end: (error) => this.#end(error),
    });
    globalThis.addEventListener?.('pagehide', this.#leave);
  }

  /** The gateway's name for the session, as in /api/sessions/{id}. */
  get id() { return this.#link.answer.session; }
  /** What the camera sees. */
  get input() { return this.#input; }
  /** What comes back: one video track, and the audio track when audio was sent. */
  get output() { return this.#link.output; }
  /** 'live', 'interrupted' (no media at the moment; it may come back), or 'closed'. */
  get state() { return this.#state; }
  /** The effect that the gateway last confirmed. */
  get effect() { return this.#confirmed.effect; }
  /** Its parameters, as the gateway last confirmed them. */
  get params() { return this.#confirmed.params; }

  /** Whether workers serve which effect: 'served', 'no_worker', or 'broker_down'. While they do not, the last picture is held. */
  get service() { return this.#service; }

  /** Calls `listener` with the detail of each event of this name; gives back the function that ends it. */
  on(name, listener) {
    const heard = (event) => listener(event.detail);
    this.addEventListener(name, heard);
    return () => this.removeEventListener(name, heard);
  }

  /** Changes the effect; parameters that are not given get their defaults. Resolves with the gateway's ack. */
  async changeEffect(effect, params = {}) {
    if (this.#state === 'closed') throw new OoblexError('closed');
    const wanted = (this.#wanted = { effect, params });
    try {
      const ack = await this.#link.control.request({ type: 'set_effect', effect, params });
      this.#confirmed = { effect: ack.effect, params: ack.params ?? params };
      return ack;
    } catch (error) {
      if (this.#wanted === wanted) this.#wanted = this.#confirmed;
      throw error;
    }
  }

  /** Changes some parameters of the effect that is on and keeps the others. Resolves with the gateway's ack. */
  async setParams(params) {
    const { effect, params: others } = this.#wanted;
    return this.changeEffect(effect, { ...others, ...params });
  }

  /** The effects of this session's gateway. */
  effects() {
    return effects(this.#base);
  }

  /** Sends another stream, or a camera opened with other constraints, from the next frame on. No reconnect. */
  async replaceSource(source) {
    if (this.#state === 'closed') throw new OoblexError('closed');
    const owned = !isStream(source);
    const next = owned ? await openCamera(source) : source;
    try {
      await this.#link.send(next);
    } catch (error) {
      if (owned) stopTracks(next);
      throw error;
    }
    this.#release();
    this.#adopt(next, owned);
    if (this.#state === 'closed') this.#release();
  }

  /** What the browser itself measures, over the time since the last call: frame rates, bit rates, the network's round trip. */
  async measure() {
    const report = await this.#link.report();
    const figures = figuresBetween(this.#earlier, report);
    this.#earlier = report;
    return figures;
  }

  /** Ends the session, here and at the gateway; stops the camera when the session opened it. Resolves when the gateway knows. */
  async close() {
    await this.#end(null);
  }

  async #end(error) {
    if (this.#state === 'closed') return;
    globalThis.removeEventListener?.('pagehide', this.#leave);
    this.#release();
    const told = this.#link.close(error ?? undefined);
    this.#become('closed');
    this.#emit('close', { error });
    await told;
  }

  #adopt(input, owned) {
    this.#input = input;
    this.#ownsInput = owned;
    videoTrack(input).addEventListener?.('ended', this.#inputEnded);
  }

  #release() {
    videoTrack(this.#input).removeEventListener?.('ended', this.#inputEnded);
    if (this.#ownsInput) stopTracks(this.#input);
  }

  #become(state) {
    if (this.#state === state || this.#state === 'closed') return;
    this.#state = state;
    this.#emit('state', state);
  }

  /** The figures say so, too: what came before anybody listened is not missed for longer than a second. */
  #serve(effect, state) {
    const { effect: before, state: told } = this.#service;
    this.#service = { effect, state };
    if (state !== told || (state !== 'served' && effect !== before)) this.#emit('service', { effect, state });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** One WebRTC connection with its control channel, from offer to end. */
class Link {
  #pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  #base;
  #video;
  #audio = null;
  #opened;

  constructor(base, input, codec) {
    this.#base = base;
    const track = videoTrack(input);
    if ('contentHint' in track) track.contentHint = 'motion';
    this.#video = this.#pc.addTransceiver(track, { direction: 'sendrecv', streams: [input] });
    if (codec) preferCodec(this.#video, codec);
    const [sound] = input.getAudioTracks();
    if (sound) this.#audio = this.#pc.addTransceiver(sound, { direction: 'sendrecv', streams: [input] });
    playAtOnce(this.#video.receiver);
    this.output = new MediaStream([this.#video, this.#audio].filter(Boolean).map((line) => line.receiver.track));
    this.answer = null;
    const channel = this.#pc.createDataChannel('control', { ordered: true });
    this.control = new Control(channel);
    this.#opened = new Promise((resolve) => channel.addEventListener('open', resolve, { once: true }));
  }

  static async open({ base, input, effect, params, codec, signal, timeoutMs }) {
    signal?.throwIfAborted();
    let link = null;
    const late = () => (link?.answer ? link.#unreached() : new OoblexError('gateway-unreachable', { detail: `${base.origin} did not answer within ${timeoutMs / 1000} s: check that the gateway runs and that its address is right.` }));
    try {
      link = new Link(base, input, codec);
      await within(timeoutMs, signal, late, (cut) => link.#negotiate(effect, params, cut));
      return link;
    } catch (error) {
      void link?.close();
      throw error;
    }
  }

  /** Tells these functions what happens from now on. */
  listen(listeners) {
    this.control.listeners = { ...listeners, closed: () => listeners.end(new OoblexError('closed', { detail: 'The gateway ended the session: connect again.' })) };
    const states = { connected: 'live', disconnected: 'interrupted' };
    this.#pc.onconnectionstatechange = () => {
      if (this.#pc.connectionState === 'failed') listeners.end(this.#unreached());
      else if (states[this.#pc.connectionState]) listeners.state(states[this.#pc.connectionState]);
    };
  }

  async send(input) {
    const track = videoTrack(input);
    if ('contentHint' in track) track.contentHint = 'motion';
    await this.#video.sender.replaceTrack(track);
    await this.#audio?.sender.replaceTrack(input.getAudioTracks()[0] ?? null);
  }

  report() {
    return this.#pc.getStats();
  }

  /** Ends the connection at once; resolves when the gateway was told, or could not be. */
  async close(error = new OoblexError('closed')) {
    this.#pc.onconnectionstatechange = null;
    this.control.close(error);
    this.#pc.close();
    if (!this.answer?.session) return;
    const url = new URL(`api/sessions/${encodeURIComponent(this.answer.session)}`, this.#base);
    await fetch(url, { method: 'DELETE', keepalive: true }).catch(() => {});
  }

  async #negotiate(effect, params, cut) {
    // The gateway learns our addresses from connectivity checks, so the offer goes out before any candidate is gathered.
    await this.#pc.setLocalDescription();
    const offer = { sdp: this.#pc.localDescription.sdp, type: 'offer', effect, params };
    const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(offer), signal: cut };
    this.answer = await call(new URL('offer', this.#base), init, 'offer-rejected');
    const connected = new Promise((resolve, reject) => {
      this.#pc.onconnectionstatechange = () => {
        if (this.#pc.connectionState === 'connected') resolve();
        if (this.#pc.connectionState === 'failed') reject(this.#unreached());
      };
    });
    try {
      await this.#pc.setRemoteDescription({ type: 'answer', sdp: this.answer.sdp });
    } catch (cause) {
      throw new OoblexError('connection-failed', { detail: `The browser cannot use the gateway's answer: ${cause.message}`, cause });
    }
    await Promise.all([connected, this.#opened]);
  }

  #unreached() {
    const addresses = candidateAddresses(this.answer?.sdp ?? '');
    const advertised = addresses.length ? ` It advertised ${addresses.join(', ')}.` : ' It advertised no address.';
    return new OoblexError('connection-failed', { detail: DETAILS['connection-failed'] + advertised });
  }
}

/** The control channel: changes go out and are matched with their acks; what the gateway tells is handed to `listeners`. */
export class Control {
  #channel;
  #timeoutMs;
  #pending = new Map();
  #lastId = 0;
  #ended = null;

  constructor(channel, { timeoutMs = ACK_TIMEOUT_MS } = {}) {
    this.#channel = channel;
    this.#timeoutMs = timeoutMs;
    this.listeners = {};
    channel.onmessage = ({ data }) => this.#route(data);
    channel.onclose = () => {
      this.close(new OoblexError('closed'));
      this.listeners.closed?.();
    };
  }

  /** Sends a change; resolves with its ack. */
  request(message) {
    if (this.#ended) return Promise.reject(this.#ended);
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#settle(id, 'reject', new OoblexError('timeout')), this.#timeoutMs);
      this.#pending.set(id, { resolve, reject, timer });
      try {
        this.#channel.send(JSON.stringify({ ...message, id }));
      } catch (cause) {
        this.#settle(id, 'reject', new OoblexError('closed', { cause }));
      }
    });
  }

  /** Ends the channel; changes without an ack are rejected with `error`. */
  close(error) {
    if (this.#ended) return;
    this.#ended = error;
    this.#channel.onmessage = this.#channel.onclose = null;
    for (const id of [...this.#pending.keys()]) this.#settle(id, 'reject', error);
    this.#channel.close();
  }

  #route(data) {
    const message = parsedObject(data);
    switch (message?.type) {
      case 'ack': return this.#settle(message.id, 'resolve', message);
      case 'stats': return this.listeners.stats?.(message);
      case 'detections': return this.listeners.detections?.(message);
      case 'service': return this.listeners.service?.(message);
      case 'error': {
        const problem = problemOf(message.problem, 0);
        if (this.#pending.has(message.id)) return this.#settle(message.id, 'reject', new OoblexError('effect-rejected', { problem }));
        return this.listeners.error?.(new OoblexError('gateway-error', { problem }));
      }
      // Other types belong to newer gateways.
    }
  }

  #settle(id, how, value) {
    const pending = this.#pending.get(id);
    if (!pending) return;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    pending[how](value);
  }
}

/** The error of this module for what getUserMedia threw. */
export function cameraError(cause) {
  const codes = {
    NotAllowedError: 'permission-denied',
    SecurityError: 'permission-denied',
    NotFoundError: 'no-camera',
    OverconstrainedError: 'no-camera',
    NotReadableError: 'camera-busy',
    AbortError: 'camera-busy',
  };
  const code = codes[cause?.name];
  if (!code) return cause;
  const detail = cause.name === 'OverconstrainedError' ? `No camera can do what was asked of it (${cause.constraint}).` : undefined;
  return new OoblexError(code, { detail, cause });
}

/** The answer of an HTTP call as JSON; `code` is for a refusal by the gateway itself. */
export async function call(url, init, code) {
  let response;
  try {
    response = await fetch(url, init);
  } catch (cause) {
    if (init?.signal?.aborted) throw cause;
    throw new OoblexError('gateway-unreachable', { detail: `${url.origin} does not answer: check that the gateway runs and that its address is right.`, cause });
  }
  const body = parsedObject(await response.text().catch(() => ''));
  if (response.ok && body) return body;
  if (!response.ok && body?.title) throw new OoblexError(code, { problem: problemOf(body, response.status) });
  throw new OoblexError('gateway-unreachable', { detail: `${url} answered with status ${response.status}, but not as an Ooblex gateway does: check the address, and a proxy in between.` });
}

/** A problem document (RFC 9457) with every field that callers rely on, whatever came in. */
export function problemOf(given, status) {
  const problem = given && typeof given === 'object' ? given : {};
  const text = (value, otherwise) => (typeof value === 'string' && value ? value : otherwise);
  const title = text(problem.title, 'Unknown problem');
  return { ...problem, type: text(problem.type, 'about:blank'), title, status: Number.isInteger(problem.status) ? problem.status : status, detail: text(problem.detail, title) };
}

/** The addresses in an answer's candidates, as `udp 192.0.2.1:8001`, each once. */
export function candidateAddresses(sdp) {
  const lines = sdp.matchAll(/^a=candidate:\S+ \d+ (\S+) \d+ (\S+) (\d+) /gm);
  return [...new Set([...lines].map(([, protocol, address, port]) => `${protocol.toLowerCase()} ${address.includes(':') ? `[${address}]` : address}:${port}`))];
}

/** Figures from two reports of getStats; rates need an earlier one and are null without. */
export function figuresBetween(earlier, now) {
  const find = (report, type, also = () => true) => [...(report?.values() ?? [])].find((s) => s.type === type && also(s));
  const isVideo = (s) => s.kind === 'video';
  const [inbound, inboundBefore] = [now, earlier].map((r) => find(r, 'inbound-rtp', isVideo));
  const [outbound, outboundBefore] = [now, earlier].map((r) => find(r, 'outbound-rtp', isVideo));
  const camera = find(now, 'media-source', isVideo);
  const pair = find(now, 'candidate-pair', (s) => s.state === 'succeeded' && s.nominated);
  const change = (a, b, field) => (a && b && a[field] >= b[field] ? a[field] - b[field] : null);
  const ratio = (a, b, scale) => (a === null || !(b > 0) ? null : (scale * a) / b);
  const rate = (a, b, field, scale) => ratio(change(a, b, field), change(a, b, 'timestamp'), 1000 * scale);
  const mean = (field, of) => ratio(change(inbound, inboundBefore, field), change(inbound, inboundBefore, of), 1000);
  return {
    roundTripMs: pair?.currentRoundTripTime >= 0 ? pair.currentRoundTripTime * 1000 : null,
    camera: { fps: camera?.framesPerSecond ?? null, width: camera?.width ?? null, height: camera?.height ?? null },
    sent: { fps: rate(outbound, outboundBefore, 'framesEncoded', 1), bitrateBps: rate(outbound, outboundBefore, 'bytesSent', 8) },
    received: {
      fps: rate(inbound, inboundBefore, 'framesDecoded', 1),
      bitrateBps: rate(inbound, inboundBefore, 'bytesReceived', 8),
      width: inbound?.frameWidth ?? null,
      height: inbound?.frameHeight ?? null,
      codec: now.get(inbound?.codecId)?.mimeType?.replace('video/', '') ?? null,
      jitterBufferMs: mean('jitterBufferDelay', 'jitterBufferEmittedCount'),
      decodeMs: mean('totalDecodeTime', 'framesDecoded'),
    },
  };
}

/** Runs `work` until it is done, `timeoutMs` have passed (then it fails with `late()`), or `signal` says stop. */
async function within(timeoutMs, signal, late, work) {
  const controller = new AbortController();
  let timer;
  let stop;
  const cut = new Promise((_, reject) => {
    timer = setTimeout(() => reject(late()), timeoutMs);
    stop = () => reject(signal.reason);
    signal?.addEventListener('abort', stop, { once: true });
  });
  try {
    return await Promise.race([work(controller.signal), cut]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', stop);
    controller.abort();
  }
}

/** Offers this codec alone (with its retransmission and error correction), so that no other can be chosen in silence. */
function preferCodec(transceiver, codec) {
  const known = RTCRtpReceiver.getCapabilities?.('video')?.codecs ?? [];
  const wanted = known.filter((c) => c.mimeType.toLowerCase() === `video/${codec}`.toLowerCase());
  if (!wanted.length || !transceiver.setCodecPreferences) {
    throw new OoblexError('offer-rejected', { detail: `This browser cannot offer the codec '${codec}': leave it out, or choose vp8 or h264.` });
  }
  // Interleaved H.264 first among its kind: the gateway speaks packetization mode 1.
  wanted.sort((a, b) => modeOne(b) - modeOne(a));
  transceiver.setCodecPreferences([...wanted, ...known.filter((c) => /\/(rtx|red|ulpfec|flexfec-03)$/i.test(c.mimeType))]);
}

function modeOne(codec) {
  return Number(/packetization-mode=1/.test(codec.sdpFmtpLine ?? ''));
}

/** Asks for no waiting between a frame's arrival and its showing; browsers that cannot keep their own. */
function playAtOnce(receiver) {
  if ('jitterBufferTarget' in receiver) receiver.jitterBufferTarget = 0;
  if ('playoutDelayHint' in receiver) receiver.playoutDelayHint = 0;
}

function gatewayBase(url = globalThis.location?.origin) {
  const base = new URL(url, globalThis.location?.href);
  if (!base.pathname.endsWith('/')) base.pathname += '/';
  return base;
}

function videoTrack(stream) {
  const [track] = stream.getVideoTracks();
  if (!track) throw new OoblexError('no-camera', { detail: 'The source has no video track: give one that has.' });
  return track;
}

function isStream(source) {
  return typeof source?.getVideoTracks === 'function';
}

function stopTracks(stream) {
  for (const track of stream.getTracks()) track.stop();
}

function parsedObject(text) {
  try {
    const value = JSON.parse(text);
    return value && typeof value === 'object' && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}
