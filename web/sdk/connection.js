/**
 * One WebRTC connection to a gateway, from the offer to the end: what the connections of publishers
 * and viewers have in common.
 *
 * A broken connection is discarded and replaced by another one; whoever holds it decides that.
 */

import { OoblexError } from './errors.js';

/**
 * The answer of a gateway to an offer.
 *
 * @typedef {{sdp: string, ice_servers?: RTCIceServer[]} & Record<string, any>} Answer
 */

/** Interval between two checks for the first picture. */
const LOOK_EVERY_MS = 40;
/** Time for the answer to an offer that is not wanted any more, so that its session can be ended. */
const FAREWELL_MS = 5_000;

export class Connection {
  #iceServers;
  /** @type {Answer | null} */
  answer = null;
  /** True if the gateway knows that the session has ended, so that it need not be told. */
  isOver = false;

  /** @param {{iceServers?: RTCIceServer[]}} wishes */
  constructor({ iceServers = [] }) {
    this.#iceServers = iceServers;
    this.pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle', iceServers });
  }

  /**
   * Offers the connection. Resolves when media can flow and `ready` has resolved. `ask` posts the
   * offer and returns the answer.
   *
   * @param {(sdp: string | undefined, signal: AbortSignal) => Promise<Answer>} ask
   * @param {AbortSignal} cut aborted when nobody waits any more
   * @param {Promise<unknown>} [ready]
   */
  async negotiate(ask, cut, ready) {
    // The gateway learns the browser's addresses from connectivity checks, so the offer is sent
    // before any candidate is gathered. Gathering begins with setLocalDescription and uses the
    // servers that are known by then, so it waits for the answer, which may name some.
    const offer = await this.pc.createOffer();
    cut.throwIfAborted();
    const { ice_servers: named, ...answer } = await outlasting(cut, (signal) => ask(offer.sdp, signal));
    this.answer = answer;
    // Nobody waits for the session any more, but the gateway has made it.
    if (cut.aborted) return void this.close();
    this.answered();
    /** @type {Promise<void>} */
    const connected = new Promise((resolve, reject) => {
      this.pc.onconnectionstatechange = () => {
        if (this.pc.connectionState === 'connected') resolve();
        if (this.pc.connectionState === 'failed') reject(this.unreached());
      };
    });
    try {
      if (named?.length) this.pc.setConfiguration({ ...this.pc.getConfiguration(), iceServers: [...this.#iceServers, ...named] });
      await this.pc.setLocalDescription(offer);
      await this.pc.setRemoteDescription({ type: 'answer', sdp: answer.sdp });
    } catch (/** @type {any} */ cause) {
      throw new OoblexError('connection-failed', { detail: `The browser cannot use the gateway's answer: ${cause.message}`, cause });
    }
    await Promise.all([connected, ready]);
  }

  /** Called when the answer is there. */
  answered() {}

  /**
   * Tells the gateway that the session has ended; rejects if that is not possible.
   *
   * @param {AbortSignal} [_]
   * @returns {Promise<unknown>}
   */
  async tellEnd(_) {
    return undefined;
  }

  report() {
    return this.pc.getStats();
  }

  /** Resolves when the first picture was decoded, or after `patienceMs`. */
  async firstPicture(patienceMs) {
    const until = performance.now() + patienceMs;
    const decoded = async () => [...(await this.report()).values()].some((s) => s.type === 'inbound-rtp' && s.kind === 'video' && s.framesDecoded > 0);
    while (performance.now() < until && this.pc.connectionState !== 'closed' && !(await decoded())) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
  }

  /**
   * Retires the connection while its last picture is still shown: listeners get no more events.
   *
   * @param {Error} [_] the reason
   */
  retire(_) {
    this.pc.onconnectionstatechange = null;
  }

  /**
   * Ends the session while its last picture is still shown; resolves when the gateway was told, or
   * cannot be.
   *
   * @param {AbortSignal} [signal]
   */
  async leave(signal) {
    if (!this.answer || this.isOver) return;
    await this.tellEnd(signal).then(() => (this.isOver = true), () => {});
  }

  /** Ends the connection at once; resolves when the gateway was told, or cannot be. */
  async close(error = new OoblexError('closed')) {
    this.retire(error);
    this.pc.close();
    await this.leave();
  }

  /** Returns the error for a connection that cannot be made, or broke. */
  unreached() {
    const addresses = candidateAddresses(this.answer?.sdp ?? '');
    const { detail } = new OoblexError('connection-failed');
    const advertised = addresses.length ? ` It advertised ${addresses.join(', ')}.` : ' It advertised no address.';
    return new OoblexError('connection-failed', { detail: detail + advertised });
  }
}

/**
 * Makes a connection and begins it within `timeoutMs`; a connection that fails is closed.
 *
 * @template {Connection} Made
 * @param {() => Made} make
 * @param {(made: Made, cut: AbortSignal) => Promise<unknown>} begin
 * @param {{base: URL, signal?: AbortSignal, timeoutMs: number}} about
 * @returns {Promise<Made>}
 */
export async function established(make, begin, { base, signal, timeoutMs }) {
  signal?.throwIfAborted();
  /** @type {Made | null} */
  let made = null;
  const late = () => (made?.answer ? made.unreached() : new OoblexError('gateway-unreachable', { detail: `${base.origin} did not answer within ${timeoutMs / 1000} s: check that the gateway runs and that its address is right.` }));
  try {
    const connection = (made = make());
    await within(timeoutMs, signal, late, (cut) => begin(connection, cut));
    return connection;
  } catch (error) {
    void made?.close();
    throw error;
  }
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
 * Offers only this codec (with its retransmission and error correction), so that no other can be
 * chosen silently.
 */
export function preferCodec(transceiver, codec) {
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
export function playAtOnce(receiver) {
  if ('jitterBufferTarget' in receiver) receiver.jitterBufferTarget = 0;
  if ('playoutDelayHint' in receiver) receiver.playoutDelayHint = 0;
}
