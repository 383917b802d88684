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

/** Whether the source delivers frames, from a count of them. */
export class Watch {
  #state;
  #frames = null;
  #since;

  /** `state` is the one so far. */
  constructor(now, state = 'live') {
    [this.#since, this.#state] = [now, state];
  }

  /**
   * Returns 'live', or 'silent' if no frame has come for a while. `frames` is any number that
   * changes while frames come.
   */
  look(now, frames) {
    const more = this.#frames !== null && frames !== this.#frames;
    this.#frames = frames;
    if (more) [this.#since, this.#state] = [now, 'live'];
    else if (now - this.#since >= SOURCE_SILENT_MS) this.#state = 'silent';
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
  return ['gateway-unreachable', 'connection-failed', 'timeout', 'closed', 'interrupted', 'no-token'].includes(code);
}
