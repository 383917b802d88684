/**
 * The token or key of this visitor: from the URL of the page, from this tab's storage, or from a
 * form.
 *
 * Owns the form and the storage of the token: `sessionStorage`, so until the tab is closed. Refuses
 * to know what the token allows.
 */

import { OoblexError } from '../sdk/ooblex.js';

const KEY = 'ooblex-token';

export class Access {
  #at = Object.fromEntries(['access', 'access-form', 'access-reason', 'access-token', 'access-show', 'access-cancel', 'other', 'other-keep', 'other-use'].map((id) => [id, document.getElementById(id)]));
  /** Fallback for browsers without storage: kept until this page is closed. */
  #token = null;
  #cancelled;
  /** Resolves when the visitor has chosen between two tokens. */
  #chosen = Promise.resolve();

  /** `cancelled` is called when the visitor gives no token. */
  constructor(cancelled) {
    this.#cancelled = cancelled;
    this.#takeFromAddress();
    addEventListener('hashchange', () => this.#takeFromAddress());
    this.#at['other-keep'].addEventListener('click', () => this.#at.other.close(''));
    this.#at['other-use'].addEventListener('click', () => this.#at.other.close('use'));
    this.#at['access-show'].addEventListener('click', () => this.#show(this.#at['access-token'].type === 'password'));
    this.#at['access-cancel'].addEventListener('click', () => this.#at.access.close(''));
    this.#at['access-form'].addEventListener('submit', (event) => {
      event.preventDefault();
      const token = this.#at['access-token'].value.trim();
      if (token) this.#at.access.close(token);
    });
  }

  /**
   * For `connect`: returns the stored token, or asks for another one if it was refused. The form is
   * not used for the refusal of a proxy.
   */
  give = async ({ refused, signal }) => {
    await this.#chosen;
    if (!refused) return this.#kept;
    if (refused.code === 'unauthorized' && !refused.problem) throw refused;
    return this.ask(refused, { signal });
  };

  /** Asks the visitor for a token and stores it; the earlier token is deleted. */
  async ask(refused, { signal } = {}) {
    const before = this.#kept;
    await this.#chosen;
    if (this.#kept !== before) return this.#kept;
    const why = reasonText(refused, Boolean(this.#kept));
    this.forget();
    const token = await this.#filledIn(why, signal);
    signal?.throwIfAborted();
    if (!token) {
      this.#cancelled();
      throw new OoblexError('no-token', { detail: 'Without a token or key this gateway does not accept your video. Press “Try again” to give one.' });
    }
    this.#keep(token);
    return token;
  }

  /** Returns whether this visitor has a token. */
  get isUsed() {
    return Boolean(this.#kept);
  }

  forget() {
    this.#keep(null);
  }

  #filledIn(why, signal) {
    const { access, 'access-token': input, 'access-reason': reason } = this.#at;
    reason.textContent = why;
    input.value = '';
    this.#show(false);
    access.returnValue = '';
    if (!access.open) access.showModal();
    input.focus();
    return new Promise((resolve) => {
      const stop = () => access.close('');
      signal?.addEventListener('abort', stop, { once: true });
      access.addEventListener('close', () => {
        signal?.removeEventListener('abort', stop);
        const token = access.returnValue;
        input.value = access.returnValue = '';
        resolve(token);
      }, { once: true });
    });
  }

  #show(shown) {
    const { 'access-token': input, 'access-show': button } = this.#at;
    input.type = shown ? 'text' : 'password';
    button.ariaPressed = String(shown);
    button.textContent = shown ? 'Hide' : 'Show';
  }

  /**
   * Takes the token from the `#` part of a link, which is never sent to a server, and removes it
   * from the address bar and the history.
   */
  #takeFromAddress() {
    const parts = location.hash.slice(1).split('&');
    const given = parts.find((part) => part.startsWith('token='));
    if (given === undefined) return;
    const others = parts.filter((part) => part !== given).join('&');
    history.replaceState(history.state, '', location.pathname + location.search + (others && `#${others}`));
    const token = decoded(given.slice('token='.length)).trim();
    if (!token || token === this.#kept) return;
    if (this.#kept) this.#chosen = this.#chosen.then(() => this.#choose(token));
    else this.#keep(token);
  }

  /**
   * Asks before a link replaces a token, because the author of the link may have chosen the token.
   */
  #choose(token) {
    const { other } = this.#at;
    other.returnValue = '';
    other.showModal();
    return new Promise((resolve) => {
      other.addEventListener('close', () => {
        if (other.returnValue === 'use') this.#keep(token);
        resolve();
      }, { once: true });
    });
  }

  get #kept() {
    try {
      return sessionStorage.getItem(KEY) ?? this.#token;
    } catch {
      return this.#token;
    }
  }

  #keep(token) {
    try {
      if (token) sessionStorage.setItem(KEY, token);
      else sessionStorage.removeItem(KEY);
      this.#token = null;
    } catch {
      this.#token = token;
    }
  }
}

/** Returns the reason for asking; empty if there was no token before. */
function reasonText({ code, detail }, had) {
  if (code === 'expired') return 'Your token has expired, so the gateway ended the session. Give another one to continue.';
  return had ? `The token was not accepted: ${detail}` : '';
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
