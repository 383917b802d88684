/**
 * Makes another connection in place of a lost one, attempt after attempt.
 *
 * Owns the delays between attempts and the time after which it gives up. Refuses to know what is
 * connected.
 */

import { OoblexError } from './errors.js';
import { delayAfter, mayPass } from './liveness.js';

/** Limits for sessions and viewers that give none. */
const RECONNECT = { maxDelayMs: 8_000, giveUpAfterMs: 5 * 60_000 };

/**
 * Returns the limits of the option `reconnect`; false if there is no second attempt.
 *
 * @param {import('./ooblex.js').ConnectOptions['reconnect']} [wanted]
 * @returns {false | Required<import('./ooblex.js').ReconnectOptions>}
 */
export function limitsOf(wanted = true) {
  return wanted && { ...RECONNECT, ...(wanted === true ? {} : wanted) };
}

/**
 * Calls `connect` until it succeeds, and returns `{link, attempts, downMs}`; null once `signal` is
 * aborted. `error` is the loss, `tell` is called before each attempt. The time that passes with
 * errors for which `isPatient` is true does not count.
 *
 * @template Link
 * @param {any} error
 * @param {{connect: () => Promise<Link>, tell: (about: {attempt: number, delayMs: number, error: any}) => void,
 *   limits: Required<import('./ooblex.js').ReconnectOptions>, signal: AbortSignal, isPatient?: (error: any) => boolean}} about
 * @returns {Promise<{link: Link, attempts: number, downMs: number} | null>}
 */
export async function comeBack(error, { connect, tell, limits: { maxDelayMs, giveUpAfterMs }, signal, isPatient = () => false }) {
  const began = performance.now();
  let since = began;
  for (let attempt = 1; ; attempt++) {
    const delayMs = delayAfter(error, attempt, maxDelayMs, Math.random());
    if (isPatient(error)) since = performance.now();
    else if (performance.now() - since + delayMs > giveUpAfterMs) throw new OoblexError('gave-up', { cause: error });
    tell({ attempt, delayMs, error });
    await pause(delayMs, signal, { hurry: !error.retryAfterMs });
    if (signal.aborted) return null;
    try {
      return { link: await connect(), attempts: attempt, downMs: Math.round(performance.now() - began) };
    } catch (/** @type {any} */ failed) {
      if (signal.aborted) return null;
      error = failed;
      if (!mayPass(failed)) throw failed;
    }
  }
}

/**
 * Resolves after this time, when the browser is online again (only if `hurry` is set), or when
 * `signal` is aborted.
 */
function pause(ms, signal, { hurry }) {
  return /** @type {Promise<void>} */ (new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      globalThis.removeEventListener?.('online', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    if (hurry) globalThis.addEventListener?.('online', done);
    signal.addEventListener('abort', done);
    if (signal.aborted) done();
  }));
}
