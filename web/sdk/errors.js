/** What can go wrong, as typed objects: a stable code, what happened, and how to mend it. Owns the words; refuses to know who throws. */

/** What each code means when nothing more is known, and what to do about it. */
const CODES = {
  'insecure-context': ['Browsers give the camera to secure pages only.', 'Open this page through https, or through http://localhost on the gateway itself.'],
  'not-supported': ['This browser cannot do that.', 'Try another browser, or a newer one.'],
  'no-camera': ['No camera was found.', 'Plug one in, or check that the system shows it.'],
  'permission-denied': ['The camera was not allowed.', 'Allow it for this site in the address bar or the system settings, then try again.'],
  'camera-busy': ['The camera is there but does not start: another program may be using it.', 'Close that program, then try again.'],
  'file-unreadable': ['The file is no video that this browser can play.', 'Choose an MP4 or WebM file.'],
  'gateway-unreachable': ['The gateway does not answer.', 'Check that it runs and that its address is right.'],
  'offer-rejected': ['The gateway refused the connection.', 'See what it says.'],
  unauthorized: ['The gateway does not accept who asks.', 'Give a token or key that it knows and that has not expired: its operator has one.'],
  forbidden: ['The gateway does not allow this.', 'Ask its operator for a token or key that allows it.'],
  'wrong-host': ['The gateway is not to be reached by this host name.', 'Use one of its own names, or add this one to its serve.hosts.'],
  'no-token': ['The application gave no token.', 'See its cause, then connect again.'],
  expired: ['The token of the session has expired, so the gateway ended the session.', 'Connect again with a new one.'],
  'connection-failed': ['The gateway answered, but no media came through.', 'Usually its UDP media port is closed by a firewall or not published by the container, or the address that it advertises cannot be reached from here.'],
  'effect-rejected': ['The gateway refused this effect or its parameters.', 'See what it says; what was on stays on.'],
  'gateway-error': ['The gateway reported a problem.', 'See what it says.'],
  interrupted: ['The connection was lost while this was under way.', 'It is made anew by itself, with what was asked for last.'],
  'gave-up': ['The connection was lost and did not come back.', 'Check the network and the gateway, then connect again.'],
  closed: ['The session has ended.', 'Connect again.'],
  timeout: ['The gateway did not confirm the change in time.', 'It confirms with the first frame that has it: is the camera still sending, and does a worker serve the effect?'],
};

/** Every error that this module throws or emits, except wrong arguments (TypeError) and an abort by the caller's signal. */
export class OoblexError extends Error {
  /**
   * @param {string} code one of the stable codes in ooblex.d.ts
   * @param {{detail?: string, problem?: object, cause?: unknown, reason?: string, retryAfterMs?: number}} [about]
   */
  constructor(code, { detail, problem = null, cause, reason = null, retryAfterMs = null } = {}) {
    const [what, mend] = CODES[code];
    const text = detail ?? problem?.detail ?? `${what} ${mend}`;
    super(text, cause === undefined ? undefined : { cause });
    this.name = 'OoblexError';
    this.code = code;
    this.detail = text;
    this.problem = problem;
    /** Why the gateway ended the session, where it did. */
    this.reason = reason;
    /** How long the gateway asks to wait before the next try. */
    this.retryAfterMs = retryAfterMs;
    /** The gateway's, where it was the gateway. */
    this.type = problem?.type ?? `urn:ooblex:sdk:${code}`;
    /** The gateway's sentence says how to mend it, too. */
    this.mend = problem?.detail ?? mend;
  }
}

/** The error of this module for what getUserMedia or getDisplayMedia threw. */
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

/** A problem document (RFC 9457) with every field that callers rely on, whatever came in. */
export function problemOf(given, status) {
  const problem = given && typeof given === 'object' ? given : {};
  const text = (value, otherwise) => (typeof value === 'string' && value ? value : otherwise);
  const title = text(problem.title, 'Unknown problem');
  return { ...problem, type: text(problem.type, 'about:blank'), title, status: Number.isInteger(problem.status) ? problem.status : status, detail: text(problem.detail, title) };
}
