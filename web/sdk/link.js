/**
 * The connection of a session that sends a camera, with its control channel.
 *
 * It exchanges the camera for the effect, or publishes to a room. The offer always has a media line
 * for audio, so that a microphone can be added later without another offer.
 */

import { Connection, established, playAtOnce, preferCodec } from './connection.js';
import { Control } from './control.js';
import { OoblexError } from './errors.js';
import { call, sessionUrl } from './http.js';
import { publishOffer } from './rooms.js';

/**
 * Wishes for a connection. `room` is the one to publish to; then pictures come back only if `echo`
 * is true.
 *
 * @typedef {{base: URL, access: import('./access.js').Access, iceServers?: RTCIceServer[],
 *   input: {video: MediaStreamTrack | null, audio: MediaStreamTrack | null}, codec?: string,
 *   room?: string, echo?: boolean}} Wishes
 *
 * @typedef {Wishes & {effect?: string, params?: import('./ooblex.js').Parameters, signal?: AbortSignal,
 *   timeoutMs: number}} Offer
 */

export class Link extends Connection {
  #base;
  #access;
  #room;
  #echo;
  /**
   * The secret that grants requests about this session; only the answer to its offer contains it.
   */
  #secret = null;
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

  /** @param {Wishes} wishes */
  constructor({ base, access, input: { video, audio }, codec, room, echo = !room, iceServers }) {
    super({ iceServers });
    [this.#base, this.#access, this.#room, this.#echo] = [base, access, room, echo];
    const direction = echo ? 'sendrecv' : 'sendonly';
    this.#video = this.pc.addTransceiver(forMotion(video), { direction });
    this.#ask('maintain-resolution');
    if (codec) preferCodec(this.#video, codec);
    this.#audio = this.pc.addTransceiver(audio ?? 'audio', { direction });
    playAtOnce(this.#video.receiver);
    /** The received tracks, if any come back; the audio is silence while none is sent. */
    this.output = echo ? { video: this.#video.receiver.track, audio: this.#audio.receiver.track } : null;
    const channel = this.pc.createDataChannel('control', { ordered: true });
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
    const begin = (bearer) => established(() => new Link(wanted), (link, cut) => link.#begin(bearer, wanted, cut), wanted);
    return access.authorized(begin, { signal, refused });
  }

  /**
   * @param {string | null} bearer
   * @param {Offer} wanted
   * @param {AbortSignal} cut
   */
  #begin(bearer, { effect, params }, cut) {
    const [base, access, room, echo] = [this.#base, this.#access, this.#room, this.#echo];
    const exchange = (sdp, signal) => {
      const body = JSON.stringify({ sdp, type: 'offer', effect, params });
      return call(new URL('offer', base), access.init(bearer, { method: 'POST', headers: { 'content-type': 'application/json' }, body, signal }), 'offer-rejected', cut);
    };
    const publish = (sdp, signal) => publishOffer(sdp, { base, room, effect, params, echo }, access.init(bearer, { signal }), cut);
    const ask = async (sdp, signal) => {
      const { secret, ...answer } = await (room ? publish : exchange)(sdp, signal);
      this.#secret = secret ?? null;
      return answer;
    };
    return this.negotiate(ask, cut, this.#opened);
  }

  answered() {
    this.#ask(this.#asked?.degradationPreference);
  }

  /** Sets the listeners: those of `Control`, and `connection` for each state of the connection. */
  listen(listeners) {
    this.control.listeners = listeners;
    this.pc.onconnectionstatechange = () => listeners.connection(this.pc.connectionState);
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

  /** Returns the number of frames that the source of the video has delivered; null without a source. */
  async frames() {
    const { sender } = this.#video;
    if (!sender.track || sender.track.readyState === 'ended') return null;
    const report = [...(await sender.getStats()).values()];
    const of = (type) => report.find((entry) => entry.type === type);
    // Some browsers count only what is sent.
    return of('media-source')?.frames ?? of('outbound-rtp')?.framesSent ?? 0;
  }

  /** Resolves when the first picture was decoded, after `patienceMs`, or at once if none comes back. */
  async firstPicture(patienceMs) {
    if (this.#echo) await super.firstPicture(patienceMs);
  }

  /**
   * Retires the link while its last picture is still shown: changes are rejected with `error`, and
   * listeners get no more events.
   */
  retire(error) {
    super.retire(error);
    this.control.close(error);
  }

  /** @param {AbortSignal} [signal] */
  async tellEnd(signal) {
    if (this.answer?.session) await this.request('', { method: 'DELETE', keepalive: true, signal });
  }

  /**
   * Sends a request about this session, or about a resource below it, with its secret. Returns the
   * answer as `fetch` does.
   */
  request(below, init) {
    return fetch(sessionUrl(this.#base, this.answer?.session, below), this.#access.init(this.#secret, init));
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
