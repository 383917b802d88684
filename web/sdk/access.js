/**
 * Holds the credentials of an application: a token, custom headers, and the credentials mode of its
 * requests.
 *
 * Owns when the token is requested and how a request carries it. Refuses to know what is requested.
 * Tokens appear in no message.
 */

import { OoblexError } from './errors.js';

export class Access {
  #token;
  #headers;
  #credentials;

  /**
   * `token` is a string, or a function that returns one.
   *
   * @param {Pick<import('./ooblex.js').ConnectOptions, 'token' | 'headers' | 'credentials'>} [options]
   */
  constructor({ token, headers, credentials } = {}) {
    if (token != null && typeof token !== 'string' && typeof token !== 'function') throw new TypeError('token must be a string, or a function that returns one');
    [this.#token, this.#headers, this.#credentials] = [token, headers, credentials];
  }

  /** Returns whether another token can be obtained when one is refused or has expired. */
  get canRenew() {
    return typeof this.#token === 'function';
  }

  /**
   * Returns an init for `fetch` with the application's settings, and with `bearer` (a token or a
   * session's secret) if it is given.
   */
  init(bearer, init = {}) {
    const headers = new Headers(this.#headers);
    new Headers(init.headers).forEach((value, name) => headers.set(name, value));
    if (bearer) headers.set('authorization', `Bearer ${bearer}`);
    return { ...init, headers, ...(this.#credentials && { credentials: this.#credentials }) };
  }

  /**
   * Calls `work` with the token, and once more with another token if the gateway refuses the first.
   *
   * @template T
   * @param {(bearer: string | null) => Promise<T>} work
   * @param {{signal?: AbortSignal, refused?: OoblexError | null}} [about] `refused` is the
   *   reason for which the last token was refused, for the application's function
   */
  async authorized(work, { signal, refused = null } = {}) {
    const bearer = await this.#bearer(refused, signal);
    try {
      return await work(bearer);
    } catch (error) {
      if (!(error instanceof OoblexError && error.code === 'unauthorized' && this.canRenew)) throw error;
      return work(await this.#bearer(error, signal));
    }
  }

  /** Returns the token for the next request; the application's function is called each time. */
  async #bearer(refused, signal) {
    if (!this.canRenew) return checked(this.#token);
    signal?.throwIfAborted();
    let stop;
    const stopped = new Promise((_, reject) => {
      stop = () => reject(signal.reason);
      signal?.addEventListener('abort', stop, { once: true });
    });
    try {
      return checked(await Promise.race([this.#asked(refused, signal), stopped]));
    } finally {
      signal?.removeEventListener('abort', stop);
    }
  }

  async #asked(refused, signal) {
    try {
      return await this.#token({ refused, signal });
    } catch (cause) {
      if (signal?.aborted || cause instanceof OoblexError) throw cause;
      throw new OoblexError('no-token', { cause });
    }
  }
}

/** Returns a token that fits into a header, or null. */
function checked(token) {
  const text = String(token ?? '').trim();
  if (!/^[\x21-\x7e]*$/.test(text)) throw new OoblexError('no-token', { detail: 'The token has characters that no token has, such as a space or a line break: copy it again, whole and alone.' });
  return text || null;
}
