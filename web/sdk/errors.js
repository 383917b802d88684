/**
 * Typed errors with a stable code, a description and a remedy. Owns the texts; refuses to know who
 * throws.
 */

/**
 * @typedef {import('./ooblex.js').Problem} Problem
 * @typedef {import('./ooblex.js').EndReason} EndReason
 */

/**
 * Description and remedy for each code, used when there are no details.
 *
 * @type {Record<import('./ooblex.js').OoblexErrorCode, [what: string, remedy: string]>}
 */
const CODES = {
  'insecure-context': ['Browsers allow the camera only on secure pages.', 'Open this page through https, or through http://localhost on the gateway itself.'],
  'not-supported': ['This browser cannot do that.', 'Try another browser, or a newer one.'],
  'no-camera': ['No camera was found.', 'Connect one, or check that the system shows it.'],
  'permission-denied': ['The camera was not allowed.', 'Allow it for this site in the address bar or the system settings, then try again.'],
  'camera-busy': ['The camera does not start: another program may be using it.', 'Close that program, then try again.'],
  'file-unreadable': ['The file is not a video that this browser can play.', 'Choose an MP4 or WebM file.'],
  'gateway-unreachable': ['The gateway does not answer.', 'Check that it runs and that its address is right.'],
  'offer-rejected': ['The gateway refused the connection.', 'See its message.'],
  unauthorized: ['The gateway did not accept the credentials.', 'Use a valid token or key that has not expired: ask the operator of the gateway.'],
  forbidden: ['The gateway does not allow this.', 'Ask its operator for a token or key that allows it.'],
  'wrong-host': ['The gateway does not answer to this host name.', 'Use one of its own names, or add this one to its serve.hosts.'],
  'no-token': ['The application returned no token.', 'See the cause, then connect again.'],
  expired: ['The token of the session has expired, so the gateway ended the session.', 'Connect again with a new one.'],
  'room-taken': ['Somebody else publishes to this room.', 'Choose another room.'],
  'room-empty': ['Nobody publishes to this room now.', 'Try again when somebody does.'],
  'room-full': ['The room has as many viewers as it may have.', 'Try again when one has left.'],
  'connection-failed': ['The gateway answered, but no media came through.', 'Usually its UDP media port is closed by a firewall or not published by the container, or the address that it advertises cannot be reached from here.'],
  'effect-rejected': ['The gateway refused this effect or its parameters.', 'See its message; the earlier effect stays on.'],
  'gateway-error': ['The gateway reported a problem.', 'See its message.'],
  interrupted: ['The connection was lost while this was under way.', 'The session reconnects by itself, with the newest settings.'],
  'gave-up': ['The connection was lost and could not be restored.', 'Check the network and the gateway, then connect again.'],
  closed: ['The session has ended.', 'Connect again.'],
  timeout: ['The gateway did not confirm the change in time.', 'It confirms with the first frame that has it: is the camera still sending, and does a worker serve the effect?'],
};

/**
 * Every error that this module throws or emits, except invalid arguments (TypeError) and an abort
 * by the caller's signal.
 */
export class OoblexError extends Error {
  /** @type {'OoblexError'} */
  name = 'OoblexError';

  /**
   * @param {import('./ooblex.js').OoblexErrorCode} code
   * @param {{detail?: string, problem?: Problem | null, cause?: unknown, reason?: EndReason | null,
   *   retryAfterMs?: number | null}} [about]
   */
  constructor(code, { detail, problem = null, cause, reason = null, retryAfterMs = null } = {}) {
    const [what, remedy] = CODES[code];
    const text = detail ?? problem?.detail ?? `${what} ${remedy}`;
    super(text, cause === undefined ? undefined : { cause });
    this.code = code;
    this.detail = text;
    this.problem = problem;
    /** The gateway's reason for ending the session, if it ended it. */
    this.reason = reason;
    /** The time that the gateway asks to wait before the next attempt. */
    this.retryAfterMs = retryAfterMs;
    /** The gateway's URN if the gateway reported the error, otherwise the SDK's. */
    this.type = problem?.type ?? `urn:ooblex:sdk:${code}`;
    /** The gateway's message contains the remedy, too. */
    this.remedy = problem?.detail ?? remedy;
  }
}

/** Returns the error of this module for an error of getUserMedia or getDisplayMedia. */
export function cameraError(cause, what = 'camera') {
  const codes = {
    NotAllowedError: 'permission-denied',
    SecurityError: 'permission-denied',
    NotFoundError: 'no-camera',
    OverconstrainedError: 'no-camera',
    NotReadableError: 'camera-busy',
    AbortError: 'camera-busy',
  };
  const code = codes[cause?.name];
  if (!code) return cause;
  const details = {
    'permission-denied': what === 'camera' ? undefined : `The ${what} was not allowed. Allow it when the browser asks, then try again.`,
    'no-camera': cause.name === 'OverconstrainedError' ? `No ${what} can do what was asked of it (${cause.constraint}).` : what === 'camera' ? undefined : `No ${what} was found: plug one in, or check that the system shows it.`,
  };
  return new OoblexError(code, { detail: details[code], cause });
}

/** Returns a problem document (RFC 9457) with every field that callers rely on, for any input. */
export function problemOf(given, status) {
  const problem = given && typeof given === 'object' ? given : {};
  const text = (value, otherwise) => (typeof value === 'string' && value ? value : otherwise);
  const title = text(problem.title, 'Unknown problem');
  return { ...problem, type: text(problem.type, 'about:blank'), title, status: Number.isInteger(problem.status) ? problem.status : status, detail: text(problem.detail, title) };
}
