/** The connection of a viewer: it receives the picture and the sound of a room, and its events. */

import { Connection, established, playAtOnce, preferCodec } from './connection.js';
import { serverSentEvents, watchOffer } from './rooms.js';

/**
 * @typedef {{base: URL, access: import('./access.js').Access, room: string, iceServers?: RTCIceServer[],
 *   codec?: string, signal?: AbortSignal, timeoutMs: number}} Watching
 */

/** Pause before the events of a room are read again, after a stream that ended and after a failure. */
const READ_ON_MS = 1_000;
const READ_AGAIN_MS = 5_000;

export class ViewLink extends Connection {
  #base;
  #access;
  #room;
  #bearer;
  /**
   * The URL of the session, which contains its secret.
   *
   * @type {URL | null}
   */
  #resource = null;
  #video;
  #audio;

  /**
   * @param {Watching} wishes
   * @param {string | null} bearer
   */
  constructor({ base, access, room, codec, iceServers }, bearer) {
    super({ iceServers });
    [this.#base, this.#access, this.#room, this.#bearer] = [base, access, room, bearer];
    this.#video = this.pc.addTransceiver('video', { direction: 'recvonly' });
    if (codec) preferCodec(this.#video, codec);
    this.#audio = this.pc.addTransceiver('audio', { direction: 'recvonly' });
    playAtOnce(this.#video.receiver);
    this.output = { video: this.#video.receiver.track, audio: this.#audio.receiver.track };
  }

  /**
   * Resolves when media can flow. `refused` is the reason for which a new token is needed.
   *
   * @param {Watching & {refused?: import('./errors.js').OoblexError | null}} wanted
   * @returns {Promise<ViewLink>}
   */
  static async open({ refused, ...wanted }) {
    const { access, signal } = wanted;
    const begin = (bearer) => established(() => new ViewLink(wanted, bearer), (link, cut) => link.#begin(cut), wanted);
    return access.authorized(begin, { signal, refused });
  }

  #begin(cut) {
    return this.negotiate(async (sdp, signal) => {
      const { resource, secret: _, ...answer } = await watchOffer(sdp, { base: this.#base, room: this.#room }, this.#access.init(this.#bearer, { signal }), cut);
      this.#resource = resource;
      return answer;
    }, cut);
  }

  /**
   * Sets the listeners: `connection` for each state of the connection, `closed` when the gateway
   * has ended it.
   */
  listen(listeners) {
    this.pc.onconnectionstatechange = () => listeners.connection(this.pc.connectionState);
    const { transport } = this.#video.receiver;
    if (transport) transport.onstatechange = () => transport.state === 'closed' && listeners.closed();
  }

  retire() {
    super.retire();
    const { transport } = this.#video.receiver;
    if (transport) transport.onstatechange = null;
  }

  /**
   * Reads the events of the room, `{event, data}`, until the session has ended or `signal` is
   * aborted. Returns true if the session has ended.
   *
   * @param {(event: {event: string, data: string}) => void} tell
   * @param {AbortSignal} signal
   */
  async read(tell, signal) {
    while (!signal.aborted) {
      const status = await this.#read(tell, signal).catch(() => 0);
      if (status === 404) return true;
      // The token has expired, and the session ends with it.
      if (status === 401 || status === 403) return false;
      // A stream that ends is the end of the session, unless the next look at it finds the session.
      await pause(status === 200 ? READ_ON_MS : READ_AGAIN_MS, signal);
    }
    return false;
  }

  /** Reads one stream to its end, and returns the status of its answer. */
  async #read(tell, signal) {
    const response = await this.#request('/events', { headers: { accept: 'text/event-stream' }, cache: 'no-store', signal });
    if (response.ok && response.body) for await (const event of serverSentEvents(response.body)) tell(event);
    return response.status;
  }

  /** @param {AbortSignal} [signal] */
  async tellEnd(signal) {
    await this.#request('', { method: 'DELETE', keepalive: true, signal });
  }

  #request(below, init) {
    return fetch(`${this.#resource}${below}`, this.#access.init(this.#bearer, init));
  }
}

/** Waits for a time, or until `signal` is aborted. */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => (clearTimeout(timer), resolve(undefined)), { once: true });
  });
}
