/**
 * Decides when a source counts as silent and a connection as lost, and the delay before the next
 * attempt to connect. Pure: time and randomness are arguments.
 */

/**
 * The gateway sends a message once per second; after a pause of this length the connection counts
 * as interrupted.
 */
const SILENT_MS = 5_000;
/** An interruption of this length counts as a lost connection. */
const LOST_AFTER_MS = 12_000;
const FIRST_DELAY_MS = 250;
/** A source without a new frame for this long is silent; a shared screen may send one per second. */
const SOURCE_SILENT_MS = 2_000;
/** Interval at which some browsers count the last frame again while the source delivers none. */
const REPEATED_EVERY_MS = 1_000;

/** Whether the source delivers frames, from a count of them. */
export class Watch {
  #state;
  #repeats;
  /** @type {number | null} */
  #frames = null;
  #since;

  /**
   * `state` is the one so far. `repeats` tells that the browser counts the last frame again while
   * the source delivers none; then one frame per second counts as none.
   */
  constructor(now, state = 'live', { repeats = false } = {}) {
    [this.#since, this.#state, this.#repeats] = [now, state, repeats];
  }

  /**
   * Returns 'live', or 'silent' if no frame has come for a while. `frames` counts the frames of the
   * source, from any number on; null if there is no source.
   *
   * @param {number} now
   * @param {number | null} frames
   */
  look(now, frames) {
    const elapsedMs = now - this.#since;
    const repeated = this.#repeats ? 1 + elapsedMs / REPEATED_EVERY_MS : 0;
    const before = (this.#frames ??= frames);
    if (frames !== null && before !== null && (frames < before || frames > before + repeated)) this.#state = 'live';
    else if (elapsedMs >= SOURCE_SILENT_MS) this.#state = 'silent';
    else return this.#state;
    [this.#since, this.#frames] = [now, frames ?? before];
    return this.#state;
  }
}

/**
 * Liveness of one connection, from the browser's connection state and the time of the gateway's
 * last message.
 */
export class Pulse {
  #heard;
  #connected = true;
  /** @type {number | null} */
  #since = null;

  constructor(now) {
    this.#heard = now;
  }

  heard(now) {
    this.#heard = now;
  }

  /** `state` is an RTCPeerConnectionState. */
  connection(state) {
    this.#connected = state === 'connected';
  }

  /** Returns whether the gateway's messages are overdue. */
  isQuiet(now) {
    return !this.#connected || now - this.#heard > SILENT_MS / 2;
  }

  /**
   * Returns 'live', 'interrupted' (it may recover by itself), or 'lost'. Call it once per second.
   */
  look(now) {
    const trouble = !this.#connected || now - this.#heard > SILENT_MS;
    this.#since = trouble ? (this.#since ?? now) : null;
    if (this.#since === null) return 'live';
    return now - this.#since >= LOST_AFTER_MS ? 'lost' : 'interrupted';
  }
}

/**
 * Returns the delay before attempt number `attempt` (the first is 1). It doubles with each attempt
 * up to `maxMs`, and is randomised (by a number from 0 to 1), so that the clients of a lost gateway
 * do not all reconnect at once.
 */
export function delayBefore(attempt, maxMs, chance) {
  const full = Math.min(maxMs, FIRST_DELAY_MS * 2 ** (attempt - 1));
  return Math.round(full * (0.5 + chance / 2));
}

/**
 * Returns the delay if the gateway may have asked to wait: its time, plus a random part to spread
 * clients that got the same time.
 */
export function delayAfter({ retryAfterMs = null }, attempt, maxMs, chance) {
  return (retryAfterMs ?? 0) + delayBefore(attempt, maxMs, chance);
}

/**
 * Returns whether the error may be temporary. A gateway that does not know the effect, for example,
 * will not accept it later.
 */
export function mayPass({ code, problem }) {
  if (code === 'offer-rejected') return [429, 502, 503, 504].includes(problem?.status);
  return ['gateway-unreachable', 'connection-failed', 'timeout', 'closed', 'interrupted', 'no-token', 'room-taken', 'room-empty', 'room-full'].includes(code);
}
