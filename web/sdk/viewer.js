/**
 * The result of `watch`: the picture and the sound of a room, and its events.
 *
 * Outlives connections: when one is lost, or the publisher is away, the viewer makes another one and
 * holds the last picture until a new one arrives. Refuses to know pages and elements.
 */

import { OoblexError } from './errors.js';
import { showTracks } from './inputs.js';
import { Pulse } from './liveness.js';
import { figuresBetween } from './measure.js';
import { comeBack, limitsOf } from './returning.js';
import { ViewLink } from './viewlink.js';

/**
 * @typedef {import('./ooblex.js').Viewer} Declared
 * @typedef {import('./ooblex.js').ViewerEvents} ViewerEvents
 */

const LOOK_EVERY_MS = 1_000;
const LEAVE_TIMEOUT_MS = 3_000;
/** Maximum time that the first picture of another connection is waited for. */
const PICTURE_PATIENCE_MS = 4_000;

/** @implements {Declared} */
export class Viewer extends EventTarget {
  /** @type {ViewLink | null} */
  #link = null;
  #wishes;
  #reconnect;
  #wait;
  #output = new MediaStream();
  /** @type {import('./ooblex.js').ViewerState} */
  #state = 'live';
  /** @type {boolean | null} */
  #active = null;
  /** @type {number | null} */
  #viewers = null;
  #sound = false;
  #pulse = new Pulse(0);
  /** @type {RTCStatsReport | null} */
  #earlier = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #looking;
  /** Aborted when the current connection is lost. */
  #reading = new AbortController();
  #returning = false;
  #ending = new AbortController();
  #leave = () => void this.close();

  /**
   * Viewers are made by `watch`. `link` is null if the room cannot be entered yet, for the reason
   * `error`.
   *
   * @param {ViewLink | null} link
   * @param {OoblexError | null} error
   * @param {import('./viewlink.js').Watching & {wait?: boolean, reconnect?: import('./ooblex.js').ConnectOptions['reconnect']}} wishes
   */
  constructor(link, error, { wait = false, reconnect, ...wishes }) {
    super();
    [this.#wishes, this.#wait, this.#reconnect] = [{ ...wishes, signal: undefined }, wait, limitsOf(reconnect)];
    globalThis.addEventListener?.('pagehide', this.#leave);
    if (link) this.#adopt(link);
    else {
      this.#state = 'waiting';
      // Whoever made the viewer gets the time to listen to it.
      setTimeout(() => this.#lose(error));
    }
  }

  get room() { return this.#wishes.room; }
  /**
   * The received picture and sound. It stays the same stream, and keeps its last picture while the
   * viewer reconnects.
   */
  get output() { return this.#output; }
  get state() { return this.#state; }
  /** Whether the publisher sends video; null until the gateway has told it. */
  get active() { return this.#active; }
  /** Number of viewers of the room, this one included; null until the gateway has told it. */
  get viewers() { return this.#viewers; }
  /** Whether the publisher has sent sound on this connection. */
  get sound() { return this.#sound; }

  /**
   * Calls `listener` with the detail of each event of this name; returns a function that removes
   * the listener.
   *
   * @template {keyof ViewerEvents} Name
   * @param {Name} name
   * @param {(detail: ViewerEvents[Name]) => void} listener
   */
  on(name, listener) {
    const heard = (/** @type {any} */ event) => listener(event.detail);
    this.addEventListener(name, heard);
    return () => this.removeEventListener(name, heard);
  }

  /** Returns the browser's own statistics since the last call. */
  async measure() {
    const report = (await this.#link?.report()) ?? /** @type {RTCStatsReport} */ (/** @type {unknown} */ (new Map()));
    const figures = figuresBetween(this.#earlier, report);
    this.#earlier = report;
    return figures;
  }

  /** Leaves the room. Resolves when the gateway was told. */
  async close() {
    await this.#end(null);
  }

  async #end(error) {
    if (this.#state === 'closed') return;
    globalThis.removeEventListener?.('pagehide', this.#leave);
    this.#stop();
    this.#ending.abort(error ?? new OoblexError('closed'));
    const told = this.#link?.close(error ?? undefined);
    this.#become('closed');
    this.#emit('close', { error });
    await told;
  }

  // Connections

  /** Makes this link the current connection. */
  #adopt(link) {
    this.#link = link;
    // What the former connection has told may not be true any more.
    [this.#active, this.#viewers, this.#sound, this.#earlier] = [null, null, false, null];
    this.#pulse = new Pulse(performance.now());
    this.#pulse.connection(link.pc.connectionState);
    this.#reading = new AbortController();
    link.listen({ connection: (state) => this.#observe(state), closed: () => this.#dismiss(link) });
    const { signal } = this.#reading;
    void link.read((event) => signal.aborted || this.#hear(event), signal).then((hasEnded) => hasEnded && this.#dismiss(link));
    showTracks(this.#output, [link.output.video, link.output.audio]);
    this.#looking = setInterval(() => void this.#look(link), LOOK_EVERY_MS);
  }

  /** Ends what belongs to the current connection. */
  #stop() {
    clearInterval(this.#looking);
    this.#reading.abort();
  }

  /** @param {RTCPeerConnectionState} state */
  #observe(state) {
    this.#pulse.connection(state);
    if (state === 'failed' || state === 'closed') this.#lose(this.#link?.unreached());
    else this.#judge();
  }

  async #look(link) {
    this.#judge();
    const report = await link.report().catch(() => new Map());
    if (link !== this.#link || this.#sound) return;
    this.#sound = [...report.values()].some((entry) => entry.type === 'inbound-rtp' && entry.kind === 'audio' && entry.packetsReceived > 0);
    if (this.#sound) this.#emit('sound', true);
  }

  #judge() {
    if (this.#returning || this.#state === 'closed') return;
    const now = performance.now();
    // The gateway sends a viewer no messages: its answers to the browser's checks are the only pulse.
    this.#pulse.heard(now);
    const verdict = this.#pulse.look(now);
    if (verdict === 'lost') this.#lose(this.#link?.unreached());
    else this.#become(verdict);
  }

  /** Handles an event of the room. */
  #hear({ event, data }) {
    if (event === 'viewercount') return this.#count(Number(/\d+/.exec(data)?.[0]));
    if (event === 'active' || event === 'inactive') this.#activate(event === 'active');
  }

  #count(viewers) {
    if (!Number.isInteger(viewers) || viewers === this.#viewers) return;
    this.#viewers = viewers;
    this.#emit('viewers', viewers);
  }

  #activate(active) {
    if (active === this.#active) return;
    this.#active = active;
    this.#emit('active', active);
  }

  /** Handles the end of the session by the gateway, which gives a viewer no reason. */
  #dismiss(link) {
    link.isOver = true;
    if (link === this.#link) this.#lose(new OoblexError('closed', { detail: 'The gateway has ended the connection: the publisher may have ended.' }));
  }

  /** Handles the loss of the connection. */
  #lose(error) {
    if (this.#returning || this.#state === 'closed') return;
    if (!this.#reconnect) return void this.#end(error);
    this.#stop();
    this.#link?.retire();
    if (this.#state !== 'waiting') this.#become('reconnecting');
    this.#returning = true;
    void this.#comeBack(error).catch((error) => this.#end(error)).finally(() => (this.#returning = false));
  }

  async #comeBack(error) {
    const { signal } = this.#ending;
    const before = this.#link;
    const connect = () => this.#another(signal);
    const tell = (about) => {
      const { error } = about;
      this.#become(isWaiting(error) ? 'waiting' : 'reconnecting');
      this.#emit('reconnecting', about);
    };
    const isPatient = (error) => this.#wait && isWaiting(error);
    const made = await comeBack(error, { connect, tell, limits: /** @type {any} */ (this.#reconnect), signal, isPatient });
    if (!made) return;
    const { link, ...figures } = made;
    if (signal.aborted) return void link.close();
    this.#adopt(link);
    void before?.close();
    this.#become('live');
    this.#emit('reconnected', figures);
  }

  /** Makes another connection, and resolves when its first picture has arrived. */
  async #another(signal) {
    // The place of the former session is free for this one.
    await this.#link?.leave(AbortSignal.timeout(LEAVE_TIMEOUT_MS));
    const link = await ViewLink.open({ ...this.#wishes, signal });
    await link.firstPicture(PICTURE_PATIENCE_MS);
    return link;
  }

  /** @param {import('./ooblex.js').ViewerState} state */
  #become(state) {
    if (this.#state === state || this.#state === 'closed') return;
    this.#state = state;
    this.#emit('state', state);
  }

  /**
   * @template {keyof ViewerEvents} Name
   * @param {Name} name
   * @param {ViewerEvents[Name]} detail
   */
  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** Returns whether an error passes when somebody else publishes, or leaves. */
export function isWaiting({ code }) {
  return code === 'room-empty' || code === 'room-full';
}
