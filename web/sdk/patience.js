/** When a connection counts as lost, and how long to wait before the next try. Pure: time and chance are arguments. */

/** The gateway says something once a second; a pause of this length is one too many. */
const SILENT_MS = 5_000;
/** Trouble that lasts this long does not mend itself. */
const LOST_AFTER_MS = 12_000;
const FIRST_DELAY_MS = 250;

/** The pulse of one connection, by the state that the browser gives it and by when the gateway was last heard. */
export class Pulse {
  #heard;
  #connected = true;
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

  /** Whether the gateway was not heard as it should be. */
  isQuiet(now) {
    return !this.#connected || now - this.#heard > SILENT_MS / 2;
  }

  /** 'live', 'interrupted' (it may mend itself), or 'lost'. To be asked about once a second. */
  look(now) {
    const trouble = !this.#connected || now - this.#heard > SILENT_MS;
    this.#since = trouble ? (this.#since ?? now) : null;
    if (!trouble) return 'live';
    return now - this.#since >= LOST_AFTER_MS ? 'lost' : 'interrupted';
  }
}

/** Before try number `attempt` (the first is 1): twice as long each time, up to `maxMs`, and spread by chance (0 to 1) so that many who lost one gateway do not come back at once. */
export function delayBefore(attempt, maxMs, chance) {
  const full = Math.min(maxMs, FIRST_DELAY_MS * 2 ** (attempt - 1));
  return Math.round(full * (0.5 + chance / 2));
}

/** The same, when the gateway may have asked to wait: its time, and what spreads those whom it told the same. */
export function delayAfter({ retryAfterMs = null }, attempt, maxMs, chance) {
  return (retryAfterMs ?? 0) + delayBefore(attempt, maxMs, chance);
}

/** Whether what went wrong may pass by itself. A gateway that knows the effect no more, say, will not change its mind. */
export function mayPass({ code, problem }) {
  if (code === 'offer-rejected') return [429, 502, 503, 504].includes(problem?.status);
  return ['gateway-unreachable', 'connection-failed', 'timeout', 'closed', 'interrupted', 'no-token'].includes(code);
}
