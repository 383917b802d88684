/**
 * One WebRTC connection with its control channel, from the offer to the end.
 *
 * A broken link is discarded and replaced by another one; the session decides that. The offer
 * always has a media line for audio, so that a microphone can be added later without another offer.
 */

import { Control } from './control.js';
import { OoblexError } from './errors.js';
import { call, sessionUrl } from './http.js';

/**
 * Wishes for a connection.
 *
 * @typedef {{base: URL, access: import('./access.js').Access, iceServers?: RTCIceServer[],
 *   input: {video: MediaStreamTrack | null, audio: MediaStreamTrack | null}, codec?: string}} Wishes
 *
 * @typedef {Wishes & {effect?: string, params?: import('./ooblex.js').Parameters, signal?: AbortSignal,
 *   timeoutMs: number}} Offer
 */

/** Interval between two checks for the first picture. */
const LOOK_EVERY_MS = 40;
/** Time for the answer to an offer that is not wanted any more, so that its session can be ended. */
const FAREWELL_MS = 5_000;

export class Link {
  #pc;
  #base;
  #access;
  /**
   * The secret that grants requests about this session; only the answer to its offer contains it.
   */
  #secret = null;
  #iceServers;
  #video;
  #audio;
  #opened;
  /**
   * The last sender settings: the maximum bitrate in bit/s (null: the browser's own), the factor by
   * which the picture is scaled down, and the degradation preference.
   *
   * @type {{bitrate: number | null, scale: number, degradationPreference?: RTCDegradationPreference} | null}
   */
  #asked = null;
  /** True if the gateway ended the session, so that it need not be told. */
  isOver = false;

  /** @param {Wishes} wishes */
  constructor({ base, access, input: { video, audio }, codec, iceServers = [] }) {
    [this.#base, this.#access, this.#iceServers] = [base, access, iceServers];
    this.#pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle', iceServers });
    this.#video = this.#pc.addTransceiver(forMotion(video), { direction: 'sendrecv' });
    this.#ask('maintain-resolution');
    if (codec) preferCodec(this.#video, codec);
    this.#audio = this.#pc.addTransceiver(audio ?? 'audio', { direction: 'sendrecv' });
    playAtOnce(this.#video.receiver);
    /** The received stream; its audio is silence while none is sent. */
    this.output = { video: this.#video.receiver.track, audio: this.#audio.receiver.track };
    this.answer = null;
    const channel = this.#pc.createDataChannel('control', { ordered: true });
    this.control = new Control(channel);
    /** @type {Promise<unknown>} */
    this.#opened = new Promise((resolve) => channel.addEventListener('open', resolve, { once: true }));
  }

  /**
   * Resolves when media can flow and the control channel is open. `input` is `{video, audio}`,
   * tracks; `refused` is the reason for which a new token is needed. The time that the application
   * needs to return a token does not count towards the timeout.
   *
   * @param {Offer & {refused?: OoblexError | null}} offer
   * @returns {Promise<Link>}
   */
  static async open({ refused, ...wanted }) {
    const { access, signal } = wanted;
    return access.authorized((bearer) => Link.#with(bearer, wanted), { signal, refused });
  }

  /**
   * @param {string | null} bearer
   * @param {Offer} offer
   */
  static async #with(bearer, { base, effect, params, signal, timeoutMs, ...wanted }) {
    signal?.throwIfAborted();
    /** @type {Link | null} */
    let link = null;
    const late = () => (link?.answer ? link.unreached() : new OoblexError('gateway-unreachable', { detail: `${base.origin} did not answer within ${timeoutMs / 1000} s: check that the gateway runs and that its address is right.` }));
    try {
      const made = (link = new Link({ base, ...wanted }));
      await within(timeoutMs, signal, late, (cut) => made.#negotiate(bearer, { effect, params }, cut));
      return made;
    } catch (error) {
      void link?.close();
      throw error;
    }
  }

  /** Sets the listeners: those of `Control`, and `connection` for each state of the connection. */
  listen(listeners) {
    this.control.listeners = listeners;
    this.#pc.onconnectionstatechange = () => listeners.connection(this.#pc.connectionState);
  }

  /** Sends these tracks from the next frame on; `null` for no audio. */
  async send({ video, audio }) {
    const isOther = video !== this.#video.sender.track;
    await this.#video.sender.replaceTrack(forMotion(video));
    await this.#audio.sender.replaceTrack(audio);
    this.#ask(this.#asked?.degradationPreference, isOther);
  }

  /**
   * Updates the sender settings. Call it regularly while the connection is up, beginning a second
   * after its start: the maximum bitrate and the scaling follow the size of the picture, which
   * cameras and windows change without an event, and from the first call on the browser may reduce
   * the resolution again.
   */
  fit() {
    this.#ask('maintain-framerate');
  }

  report() {
    return this.#pc.getStats();
  }

  /** Returns the number of frames that the source of the video has delivered; null without a source. */
  async frames() {
    const { sender } = this.#video;
    if (!sender.track || sender.track.readyState === 'ended') return null;
    const report = [...(await sender.getStats()).values()];
    const of = (type) => report.find((entry) => entry.type === type);
    // Some browsers count only what is sent.
    return of('media-source')?.frames ?? of('outbound-rtp')?.framesSent ?? 0;
  }

  /** Resolves when the first picture was decoded, or after `patienceMs`. */
  async firstPicture(patienceMs) {
    const until = performance.now() + patienceMs;
    const decoded = async () => [...(await this.report()).values()].some((s) => s.type === 'inbound-rtp' && s.kind === 'video' && s.framesDecoded > 0);
    while (performance.now() < until && this.#pc.connectionState !== 'closed' && !(await decoded())) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
  }

  /**
   * Retires the link while its last picture is still shown: changes are rejected with `error`, and
   * listeners get no more events.
   */
  retire(error) {
    this.#pc.onconnectionstatechange = null;
    this.control.close(error);
  }

  /** Ends the connection at once; resolves when the gateway was told, or cannot be. */
  async close(error = new OoblexError('closed')) {
    this.retire(error);
    this.#pc.close();
    if (!this.answer?.session || this.isOver) return;
    await this.request('', { method: 'DELETE', keepalive: true }).catch(() => {});
  }

  /**
   * Sends a request about this session, or about a resource below it, with its secret. Returns the
   * answer as `fetch` does.
   */
  request(below, init) {
    return fetch(sessionUrl(this.#base, this.answer.session, below), this.#access.init(this.#secret, init));
  }

  /** Returns the error for a connection that cannot be made, or broke. */
  unreached() {
    const addresses = candidateAddresses(this.answer?.sdp ?? '');
    const { detail } = new OoblexError('connection-failed');
    const advertised = addresses.length ? ` It advertised ${addresses.join(', ')}.` : ' It advertised no address.';
    return new OoblexError('connection-failed', { detail: detail + advertised });
  }

  /**
   * Sets the sender parameters for this picture.
   *
   * The connection begins with 'maintain-resolution', because Chromium (156) assumes 300 kbit/s
   * until its encoder gets an estimate, and reacts to each frame that seems too large for that by
   * sending half of the width and height for eight seconds.
   *
   * With another source a keyframe is requested, because Chromium tells that the colours of a source
   * have no name, unlike those before, with a keyframe only.
   *
   * @param {RTCDegradationPreference} [degradationPreference]
   * @param {boolean} [keyFrame]
   */
  #ask(degradationPreference, keyFrame = false) {
    const { sender } = this.#video;
    const { width = NaN, height = NaN } = sender.track?.getSettings?.() ?? {};
    const scale = scaleFor({ width, height }, this.answer?.frame_kilopixels);
    const bitrate = bitrateFor({ width: width / scale, height: height / scale });
    const before = this.#asked;
    const scaleBefore = before?.scale ?? 1;
    if (!keyFrame && bitrate === before?.bitrate && scale === scaleBefore && degradationPreference === before?.degradationPreference) return;
    const parameters = sender.getParameters?.() ?? {};
    const [encoding] = parameters.encodings ?? [];
    if (!encoding) return;
    this.#asked = { bitrate, scale, degradationPreference };
    if (bitrate) encoding.maxBitrate = bitrate;
    else delete encoding.maxBitrate;
    // A factor that the application has set stays as long as none is necessary.
    if (scale !== scaleBefore) encoding.scaleResolutionDownBy = scale;
    // A browser that rejects the parameters uses its defaults.
    sender.setParameters({ ...parameters, degradationPreference }, { encodingOptions: [{ keyFrame }] }).catch(() => {});
  }

  async #negotiate(bearer, wanted, cut) {
    // The gateway learns the browser's addresses from connectivity checks, so the offer is sent
    // before any candidate is gathered. Gathering begins with setLocalDescription and uses the
    // servers that are known by then, so it waits for the answer, which may name some.
    const offer = await this.#pc.createOffer();
    cut.throwIfAborted();
    const body = JSON.stringify({ sdp: offer.sdp, type: 'offer', ...wanted });
    const post = (signal) => call(new URL('offer', this.#base), this.#access.init(bearer, { method: 'POST', headers: { 'content-type': 'application/json' }, body, signal }), 'offer-rejected', cut);
    const { secret, ice_servers: named, ...answer } = await outlasting(cut, post);
    [this.answer, this.#secret] = [answer, secret ?? null];
    // Nobody waits for the session any more, but the gateway has made it.
    if (cut.aborted) return void this.close();
    this.#ask(this.#asked?.degradationPreference);
    /** @type {Promise<void>} */
    const connected = new Promise((resolve, reject) => {
      this.#pc.onconnectionstatechange = () => {
        if (this.#pc.connectionState === 'connected') resolve();
        if (this.#pc.connectionState === 'failed') reject(this.unreached());
      };
    });
    try {
      if (named?.length) this.#pc.setConfiguration({ ...this.#pc.getConfiguration(), iceServers: [...this.#iceServers, ...named] });
      await this.#pc.setLocalDescription(offer);
      await this.#pc.setRemoteDescription({ type: 'answer', sdp: this.answer.sdp });
    } catch (/** @type {any} */ cause) {
      throw new OoblexError('connection-failed', { detail: `The browser cannot use the gateway's answer: ${cause.message}`, cause });
    }
    await Promise.all([connected, this.#opened]);
  }
}

/**
 * Returns the maximum bitrate for a picture of this size in bit/s: 4 Mbit/s for 1280×720, in
 * proportion to the pixels for other sizes, at most 8 Mbit/s. Null up to 640×480 and for an unknown
 * size, because the browsers' own limits are sufficient there. Chromium's own limit is 2.5 Mbit/s
 * for all larger sizes.
 */
export function bitrateFor({ width, height }) {
  const pixels = width * height;
  return pixels > 640 * 480 ? Math.round(Math.min(8e6, Math.max(2e6, (4e6 * pixels) / (1280 * 720)))) : null;
}

/**
 * Returns the factor (1 or more) by which a picture of this size is scaled down so that it has at
 * most `kilopixels` thousands of pixels, in sixteenths of its size. 1 if either is unknown.
 *
 * @param {{width?: number, height?: number}} size
 * @param {number} [kilopixels]
 */
export function scaleFor({ width = NaN, height = NaN }, kilopixels = NaN) {
  const ratio = Math.sqrt((1000 * kilopixels) / (width * height));
  if (!(ratio < 1)) return 1;
  return 1 / (ratio < 0.25 ? ratio : Math.floor(16 * ratio) / 16);
}

/** Returns the addresses in an answer's candidates, as `udp 192.0.2.1:8001`, without duplicates. */
export function candidateAddresses(sdp) {
  const lines = sdp.matchAll(/^a=candidate:\S+ \d+ (\S+) \d+ (\S+) (\d+) /gm);
  return [...new Set([...lines].map(([, protocol, address, port]) => `${protocol.toLowerCase()} ${address.includes(':') ? `[${address}]` : address}:${port}`))];
}

/**
 * Runs `work` until it is done, `timeoutMs` have passed (then it fails with `late()`), or `signal`
 * is aborted.
 */
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

/** Runs `work` with a signal that is aborted only some time after `signal`. */
async function outlasting(signal, work) {
  const later = new AbortController();
  let timer;
  const wait = () => (timer = setTimeout(() => later.abort(), FAREWELL_MS));
  signal.addEventListener('abort', wait, { once: true });
  try {
    return await work(later.signal);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', wait);
  }
}

/**
 * Returns whether this browser sends the last frame of a source again once per second while the
 * source delivers none, and counts it as another one. Firefox does (VideoFrameConverter).
 */
export function repeatsFrames() {
  return /\bFirefox\//.test(globalThis.navigator?.userAgent ?? '');
}

/** Prefers the frame rate to the resolution if the bandwidth is low. */
function forMotion(track) {
  if ('contentHint' in track) track.contentHint = 'motion';
  return track;
}

/**
 * Offers only this codec (with its retransmission and error correction), so that no other can be
 * chosen silently.
 */
function preferCodec(transceiver, codec) {
  const known = RTCRtpReceiver.getCapabilities?.('video')?.codecs ?? [];
  const wanted = known.filter((c) => c.mimeType.toLowerCase() === `video/${codec}`.toLowerCase());
  if (!wanted.length || !transceiver.setCodecPreferences) {
    throw new OoblexError('offer-rejected', { detail: `This browser cannot offer the codec '${codec}': leave it out, or choose vp8 or h264.` });
  }
  // Prefers H.264 with packetization mode 1 (non-interleaved), which the gateway uses.
  wanted.sort((a, b) => modeOne(b) - modeOne(a));
  transceiver.setCodecPreferences([...wanted, ...known.filter((c) => /\/(rtx|red|ulpfec|flexfec-03)$/i.test(c.mimeType))]);
}

function modeOne(codec) {
  return Number(/packetization-mode=1/.test(codec.sdpFmtpLine ?? ''));
}

/**
 * Requests no delay between the arrival of a frame and its display; browsers that do not support it
 * keep their own delay.
 */
function playAtOnce(receiver) {
  if ('jitterBufferTarget' in receiver) receiver.jitterBufferTarget = 0;
  if ('playoutDelayHint' in receiver) receiver.playoutDelayHint = 0;
}
