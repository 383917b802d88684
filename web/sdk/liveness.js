/**
 * Decides when a connection counts as lost, and the delay before the next attempt. Pure: time and
 * randomness are arguments.
 */

/**
 * The gateway sends a message once per second; after a pause of this length the connection counts
 * as interrupted.
 */
const SILENT_MS = 5_000;
/** An interruption of this length counts as a lost connection. */
const LOST_AFTER_MS = 12_000;
const FIRST_DELAY_MS = 250;

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
