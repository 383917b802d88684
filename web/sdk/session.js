/**
 * The result of `connect`: the streams, the effect, and the events of one session.
 *
 * Owns the requested effect and outlives connections: when one is lost, the session makes another
 * one with the same effect and parameters, and holds the last picture until a new one arrives.
 * Refuses to know pages, elements, and the meaning of effects.
 */

import { OoblexError } from './errors.js';
import { goodbye } from './goodbye.js';
import { listed } from './http.js';
import { Inputs, showTracks } from './inputs.js';
import { Link, repeatsFrames } from './link.js';
import { figuresBetween } from './measure.js';
import { Pulse, Watch } from './liveness.js';
import { comeBack, limitsOf } from './returning.js';
import { openCamera, openFile, openMicrophone, openScreen, videoTrack } from './sources.js';

/**
 * @typedef {import('./ooblex.js').Session} Declared
 * @typedef {import('./ooblex.js').SessionEvents} SessionEvents
 * @typedef {{effect: string | null, params: import('./ooblex.js').Parameters}} Settings
 */

const LOOK_EVERY_MS = 1_000;
const WATCH_EVERY_MS = 500;
const ASK_TIMEOUT_MS = 3_000;
/** Interval at which a publisher asks how many viewers its room has. */
const COUNT_EVERY_MS = 2_000;
/** A connection without a picture (a muted camera, for example) counts as a connection, too. */
const PICTURE_PATIENCE_MS = 4_000;
const CAMERA_GONE = 'The camera stopped: was it unplugged or taken away? Give the session another source.';

/** @implements {Declared} */
export class Session extends EventTarget {
  #link;
  #base;
  #access;
  #iceServers;
  #codec;
  #timeoutMs;
  #reconnect;
  #room;
  #echo;
  /** @type {number | null} */
  #viewers = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #counting;
  #inputs;
  #output = new MediaStream();
  /** @type {import('./ooblex.js').SessionState} */
  #state = 'live';
  /** @type {Settings} */
  #confirmed;
  /** @type {Settings} */
  #wanted;
  /** Number of pending changes of the effect by this session. */
  #changing = 0;
  /**
   * The number of the newest change that the gateway reported, and whether somebody else made it.
   */
  #newest = 0;
  #overruled = false;
  /** @type {RTCStatsReport | null} */
  #earlier = null;
  /** @type {import('./ooblex.js').Session['service']} */
  #service = { effect: null, state: 'served' };
  #pulse;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #looking;
  /** Whether the source delivers frames, and the timer that looks. */
  #watch = watching('live');
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #watching;
  /** @type {import('./ooblex.js').SourceState} */
  #source = 'live';
  #asking = false;
  /**
   * While the session reconnects, a promise that changes of the effect wait for.
   *
   * @type {Promise<void> | null}
   */
  #returning = null;
  #ending = new AbortController();
  #leave = () => void this.close();
  #look = () => this.#judge(this.#pulse.look(performance.now()));
  #hurry = () => this.#state === 'interrupted' && void this.#ask();

  /**
   * Sessions are made by `connect` and `publish`. `input` is the result of `Inputs.of`.
   *
   * @param {Link} link
   * @param {Omit<import('./link.js').Offer, 'input' | 'signal'> & {input: Awaited<ReturnType<typeof Inputs.of>>,
   *   reconnect?: import('./ooblex.js').ConnectOptions['reconnect']}} options
   */
  constructor(link, { base, access, iceServers, input, effect, params, codec, timeoutMs, reconnect, room, echo }) {
    super();
    [this.#base, this.#access, this.#iceServers, this.#codec, this.#timeoutMs] = [base, access, iceServers, codec, timeoutMs];
    [this.#room, this.#echo] = [room, echo];
    this.#reconnect = limitsOf(reconnect);
    this.#confirmed = this.#wanted = { effect: effect ?? link.answer?.effect ?? null, params: params ?? {} };
    this.#inputs = new Inputs(() => this.#emit('error', new OoblexError('no-camera', { detail: CAMERA_GONE })));
    this.#inputs.take(input);
    this.#adopt(link);
    globalThis.addEventListener?.('pagehide', this.#leave);
    globalThis.addEventListener?.('online', this.#hurry);
  }

  /** The gateway's id of the session, as in /api/sessions/{id}; it changes with a reconnect. */
  get id() { return this.#link.answer.session; }
  /**
   * The stream that is sent. It stays the same for the whole session; its tracks change with the
   * source.
   */
  get input() { return this.#inputs.stream; }
  /**
   * The stream that is received. It stays the same for the whole session, and keeps its last
   * picture while the session reconnects.
   */
  get output() { return this.#output; }
  /**
   * 'live', 'interrupted' (no media at the moment; it may recover), 'reconnecting', or 'closed'.
   */
  get state() { return this.#state; }
  /**
   * The effect in force, as last reported by the gateway: it confirmed a change of this session, or
   * reported one by somebody else.
   */
  get effect() { return this.#confirmed.effect; }
  /** The parameters in force, as last reported by the gateway. */
  get params() { return this.#confirmed.params; }
  /**
   * The effect and its service state: 'served', 'no_worker', or 'broker_down'. While it is not
   * served, the last picture is held.
   */
  get service() { return this.#service; }
  /**
   * 'live', or 'silent' while the source delivers no frames: the camera is off or was taken away,
   * or there is no track.
   */
  get sourceState() { return this.#source; }
  /** The room that the session publishes to, or null. */
  get room() { return this.#room ?? null; }
  /** Number of viewers of the room; null until the gateway has told it, and without a room. */
  get viewers() { return this.#viewers; }
  /** Muted inputs: `{video, audio}`. */
  get muted() { return this.#inputs.muted; }

  /**
   * Calls `listener` with the detail of each event of this name; returns a function that removes
   * the listener.
   *
   * @template {keyof SessionEvents} Name
   * @param {Name} name
   * @param {(detail: SessionEvents[Name]) => void} listener
   */
  on(name, listener) {
    const heard = (/** @type {any} */ event) => listener(event.detail);
    this.addEventListener(name, heard);
    return () => this.removeEventListener(name, heard);
  }

  // The effect

  /** Changes the effect; omitted parameters get their defaults. Resolves with the gateway's ack. */
  async changeEffect(effect, params = {}) {
    const wanted = (this.#wanted = { effect, params });
    this.#changing += 1;
    try {
      return await this.#changed(wanted);
    } finally {
      this.#changing -= 1;
      if (!this.#changing && this.#overruled) this.#wanted = this.#confirmed;
    }
  }

  /** Sends the wanted effect until the gateway answers. */
  async #changed(wanted) {
    const { effect, params } = wanted;
    for (;;) {
      await this.#returning;
      if (this.#state === 'closed') throw new OoblexError('closed');
      try {
        const ack = await this.#link.control.request({ type: 'set_effect', effect, params });
        if (this.#isNewest(ack)) {
          this.#confirmed = { effect: ack.effect, params: ack.params ?? params };
          this.#overruled = false;
        }
        return ack;
      } catch (error) {
        if (this.#wanted === wanted && this.#mayBeAskedAgain(error)) continue;
        if (this.#wanted === wanted) this.#wanted = this.#confirmed;
        throw error;
      }
    }
  }

  /**
   * Returns whether a message is about the newest change that the gateway reported: an ack is sent
   * with a frame, so other messages may have overtaken it.
   *
   * @param {{change?: number}} message
   */
  #isNewest({ change }) {
    if (change === undefined || !Number.isInteger(change)) return true;
    if (change < this.#newest) return false;
    this.#newest = change;
    return true;
  }

  /** Handles a change of the settings by somebody else. */
  #follow({ effect, params = {}, by = null, ...message }) {
    if (typeof effect !== 'string' || !this.#isNewest(message)) return;
    const previous = this.#confirmed;
    this.#confirmed = { effect, params };
    this.#overruled = true;
    // A pending change of this session may be newer.
    if (!this.#changing) this.#wanted = this.#confirmed;
    this.#emit('settings', { effect, params, by, previous });
  }

  /**
   * Returns whether a change failed only because of its connection: the next connection begins with
   * the wanted effect, and is asked once more for the ack.
   */
  #mayBeAskedAgain(error) {
    if (this.#state === 'closed') return false;
    if (error.code === 'timeout') return this.#pulse.isQuiet(performance.now());
    if (error.code !== 'interrupted' && error.code !== 'closed') return false;
    this.#lose(error);
    return true;
  }

  /**
   * Changes some parameters of the current effect and keeps the others. Resolves with the gateway's
   * ack.
   */
  async setParams(params) {
    const { effect, params: others } = this.#wanted;
    return this.changeEffect(effect, { ...others, ...params });
  }

  /** Returns the effects of this session's gateway. */
  effects() {
    return listed(this.#base, this.#access);
  }

  /**
   * Sends a request about this session (`/api/sessions/{id}`), or about a resource below it, such
   * as `events`, with the session's secret: for `GET`, `PATCH`, `DELETE`. Returns the answer as
   * `fetch` does.
   */
  request(below = '', init = {}) {
    return this.#link.request(below, init);
  }

  // The source. It changes from one frame to the next, without a reconnect.

  /**
   * Sends another stream, or a camera opened with other constraints. The audio does not change if
   * the stream has none.
   */
  async replaceSource(source) {
    const { video, audio } = await this.#opened(() => Inputs.of(source));
    await this.#send(audio ? { video, audio } : { video });
  }

  /**
   * Sends a camera: any, the one with this `deviceId`, or one by constraints such as `{facingMode:
   * 'environment'}`. The audio does not change.
   */
  async useCamera(wanted = {}) {
    const size = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
    const video = typeof wanted === 'string' ? { ...size, deviceId: { exact: wanted } } : { ...size, ...wanted };
    const open = () => openCamera({ video, audio: false });
    const stream = await this.#opened(() => open().catch((error) => {
      if (error.code !== 'camera-busy') throw error;
      // Phones allow only one open camera at a time.
      this.#inputs.stopPicture();
      return open();
    }));
    await this.#send({ video: { stream, track: videoTrack(stream), owned: true } });
  }

  /** Asks the user for a screen, a window or a tab, and sends it. */
  async useScreen(constraints) {
    const stream = await this.#opened(() => openScreen(constraints));
    await this.#send({ video: { stream, track: videoTrack(stream), owned: true } });
  }

  /** Plays a video file in a loop and sends its picture. */
  async useFile(file) {
    const stream = await this.#opened(() => openFile(file));
    await this.#send({ video: { stream, track: videoTrack(stream), owned: true } });
  }

  /** Sends a microphone: any, the one with this `deviceId`, or none (`false`). */
  async useMicrophone(wanted = true) {
    if (!wanted) return this.#send({ audio: null });
    const stream = await this.#opened(() => openMicrophone(wanted));
    await this.#send({ audio: { stream, track: stream.getAudioTracks()[0], owned: true } });
  }

  /** Starts or stops sending black (`'video'`) or silence (`'audio'`). The camera stays on. */
  mute(kind, muted = true) {
    this.#inputs.mute(kind, muted);
  }

  // Statistics and the end

  /**
   * Returns the browser's own statistics since the last call: frame rates, bitrates, the network's
   * round trip.
   */
  async measure() {
    const report = await this.#link.report();
    const figures = figuresBetween(this.#earlier, report);
    this.#earlier = report;
    return figures;
  }

  /**
   * Ends the session, here and at the gateway, and stops a camera that the session opened. Resolves
   * when the gateway was told.
   */
  async close() {
    await this.#end(null);
  }

  async #end(error) {
    if (this.#state === 'closed') return;
    globalThis.removeEventListener?.('pagehide', this.#leave);
    globalThis.removeEventListener?.('online', this.#hurry);
    this.#stopLooking();
    this.#ending.abort(error ?? new OoblexError('closed'));
    this.#inputs.release();
    const told = this.#link.close(error ?? undefined);
    this.#become('closed');
    this.#emit('close', { error, reason: error?.reason ?? null });
    await told;
  }

  // Connections

  /** Makes this link the current connection. */
  #adopt(link) {
    this.#link = link;
    this.#earlier = null;
    this.#newest = 0;
    this.#overruled = false;
    this.#pulse = new Pulse(performance.now());
    link.listen({
      heard: () => this.#pulse.heard(performance.now()),
      stats: (stats) => {
        if (!this.#wanted.effect) this.#confirmed = this.#wanted = { effect: stats.effect, params: {} };
        if (stats.service) this.#serve(stats.effect, stats.service);
        this.#emit('stats', stats);
      },
      service: ({ effect, state }) => this.#serve(effect, state),
      detections: (detections) => this.#emit('detections', detections),
      error: (error) => this.#emit('error', error),
      settings: (settings) => this.#follow(settings),
      // `bye` is the last message. The session does not wait for the connection to close, which may
      // never happen.
      bye: (bye) => this.#dismiss(bye),
      closed: () => this.#dismiss(null),
      connection: (state) => {
        this.#pulse.connection(state);
        if (state === 'failed') this.#lose(link.unreached());
        else this.#look();
      },
    });
    this.#showOutput();
    this.#stopLooking();
    this.#looking = setInterval(() => {
      link.fit();
      this.#look();
    }, LOOK_EVERY_MS);
    this.#watch = watching(this.#source);
    this.#watching = setInterval(() => void this.#observe(link), WATCH_EVERY_MS);
    if (this.#room) this.#counting = setInterval(() => void this.#count(link), COUNT_EVERY_MS);
  }

  #stopLooking() {
    clearInterval(this.#looking);
    clearInterval(this.#watching);
    clearInterval(this.#counting);
  }

  /** Reports the number of viewers when it has changed. */
  async #count(link) {
    const signal = AbortSignal.timeout(ASK_TIMEOUT_MS);
    const about = await link.request('', { signal, cache: 'no-store' }).then((answer) => answer.json(), () => null).catch(() => null);
    const viewers = about?.viewers;
    if (!Number.isInteger(viewers) || viewers === this.#viewers || link !== this.#link || this.#state === 'closed') return;
    this.#viewers = viewers;
    this.#emit('viewers', viewers);
  }

  /** Reports a source that has become silent, or delivers frames again. */
  async #observe(link) {
    const frames = await link.frames().catch(() => undefined);
    if (frames === undefined || link !== this.#link || this.#returning || this.#state === 'closed') return;
    // Such a browser sends black for a muted track, once per second as well.
    if (repeatsFrames() && this.#inputs.tracks.video?.enabled === false) return void (this.#watch = watching(this.#source));
    const state = this.#watch.look(performance.now(), frames);
    if (state === this.#source) return;
    this.#source = state;
    this.#tellSource();
  }

  #tellSource() {
    this.#emit('source', { input: this.input, state: this.#source });
  }

  #judge(verdict) {
    if (this.#returning || this.#state === 'closed') return;
    if (verdict === 'lost') this.#lose(this.#link.unreached());
    else this.#become(verdict);
    if (this.#state === 'interrupted') void this.#ask();
  }

  /**
   * Asks the gateway whether it still has the session. A restarted gateway does not, so the session
   * need not wait for the timeout.
   */
  async #ask() {
    if (this.#asking) return;
    const link = this.#link;
    this.#asking = true;
    const signal = AbortSignal.timeout(ASK_TIMEOUT_MS);
    const status = await link.request('', { signal, cache: 'no-store' }).then((answer) => answer.status, () => null);
    this.#asking = false;
    // A restarted gateway does not know the secret either.
    if ([401, 403, 404].includes(status) && link === this.#link && this.#state === 'interrupted') this.#lose(new OoblexError('closed', { detail: 'The gateway does not know the session any more.' }));
  }

  /** Handles the end of the session by the gateway. */
  #dismiss(bye) {
    if (bye) this.#link.isOver = true;
    const { error, comesBack } = goodbye(bye, this.#access);
    this.#lose(error, { comesBack });
  }

  /** Handles the loss of the connection. */
  #lose(error, { comesBack = true } = {}) {
    if (this.#returning || this.#state === 'closed') return;
    if (!this.#reconnect || !comesBack) return void this.#end(error);
    this.#stopLooking();
    this.#link.retire(new OoblexError('interrupted', { cause: error }));
    this.#become('reconnecting');
    this.#returning = this.#comeBack(error).catch((error) => this.#end(error)).finally(() => (this.#returning = null));
  }

  async #comeBack(error) {
    const { signal } = this.#ending;
    const { reason } = error;
    // An application that caches its token must learn that this one is no longer valid.
    let refused = reason === 'expired' ? error : null;
    const connect = () =>
      this.#another(signal, refused).catch((failed) => {
        if (failed.code !== 'no-token') refused = null;
        throw failed;
      });
    const tell = (about) => this.#emit('reconnecting', { ...about, reason });
    const made = await comeBack(error, { connect, tell, limits: /** @type {any} */ (this.#reconnect), signal });
    if (!made) return;
    const { link, ...figures } = made;
    if (signal.aborted) return void link.close();
    const before = this.#link;
    this.#adopt(link);
    void before.close();
    this.#become('live');
    this.#emit('reconnected', { id: this.id, ...figures });
  }

  /**
   * Makes another connection with the wanted effect, and resolves when its first picture has
   * arrived.
   */
  async #another(signal, refused) {
    // The room is free only when its former session has ended.
    if (this.#room) await this.#link.leave(AbortSignal.timeout(ASK_TIMEOUT_MS));
    const wanted = this.#wanted;
    const sent = this.#inputs.tracks;
    const link = await Link.open({ base: this.#base, access: this.#access, iceServers: this.#iceServers, refused, input: sent, effect: wanted.effect ?? undefined, params: wanted.params, codec: this.#codec, room: this.#room, echo: this.#echo, signal, timeoutMs: this.#timeoutMs });
    await link.firstPicture(PICTURE_PATIENCE_MS);
    const now = this.#inputs.tracks;
    if (now.video !== sent.video || now.audio !== sent.audio) await link.send(now);
    this.#confirmed = wanted;
    return link;
  }

  // Input and output

  /** Returns the result of `open`, or releases it if the session was closed in the meantime. */
  async #opened(open) {
    if (this.#state === 'closed') throw new OoblexError('closed');
    return open();
  }

  /** Sends other tracks; while the session reconnects, the next connection begins with them. */
  async #send(inputs) {
    const { video, audio } = this.#inputs.tracks;
    const tracks = { video: inputs.video?.track ?? video, audio: inputs.audio === undefined ? audio : (inputs.audio?.track ?? null) };
    try {
      if (!this.#returning && this.#state !== 'closed') await this.#link.send(tracks);
    } catch (error) {
      for (const { track, owned } of [inputs.video, inputs.audio].filter(Boolean)) if (owned) track.stop();
      throw error;
    }
    this.#inputs.take(inputs);
    if (this.#state === 'closed') return this.#inputs.release();
    this.#showOutput();
    this.#tellSource();
  }

  /** The output has an audio track only while audio is sent, and no track if nothing comes back. */
  #showOutput() {
    if (!this.#link.output) return;
    const { video, audio } = this.#link.output;
    showTracks(this.#output, this.#inputs.tracks.audio ? [video, audio] : [video]);
  }

  /** @param {import('./ooblex.js').SessionState} state */
  #become(state) {
    if (this.#state === state || this.#state === 'closed') return;
    this.#state = state;
    this.#emit('state', state);
  }

  /**
   * `stats` repeat the service state, so a message that was missed is made up for within a second.
   */
  #serve(effect, state) {
    const { effect: before, state: told } = this.#service;
    this.#service = { effect, state };
    if (state !== told || (state !== 'served' && effect !== before)) this.#emit('service', { effect, state });
  }

  /**
   * @template {keyof SessionEvents} Name
   * @param {Name} name
   * @param {SessionEvents[Name]} detail
   */
  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** Returns what watches a source in this state. */
function watching(state) {
  return new Watch(performance.now(), state, { repeats: repeatsFrames() });
}
