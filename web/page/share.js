/**
 * Sharing: the dialog that begins and ends it, and the link under which others watch.
 *
 * Owns the dialog and the name of the room. Refuses to know sessions.
 */

import { randomRoom } from '../sdk/ooblex.js';
import { audienceText } from './texts.js';

const IDS = [
  'share', 'share-count', 'share-dialog', 'share-form', 'share-title', 'share-before', 'share-sound', 'share-token', 'share-choose', 'share-name', 'share-begin', 'share-after',
  'share-link', 'share-copy', 'share-audience', 'share-send', 'share-end', 'share-close', 'share-problem',
];
const COPIED_FOR_MS = 3_000;

export class Share {
  #at = Object.fromEntries(IDS.map((id) => [id, document.getElementById(id)]));
  #begin;
  #end;
  /** The last room of this page: who has its link can use that again when sharing begins again. */
  #room = null;
  /** The room that is shared now. */
  #shared = null;
  /** Aborted when the dialog is closed before sharing has begun. */
  #beginning = new AbortController();

  /**
   * `begin` shares, with `{room, sound, signal}`, and `end` ends that; both reject with errors of the
   * SDK.
   *
   * @param {{begin: (wanted: {room: string, sound: boolean, signal: AbortSignal}) => Promise<void>, end: () => Promise<void>}} calls
   */
  constructor({ begin, end }) {
    [this.#begin, this.#end] = [begin, end];
    const { 'share-dialog': dialog, 'share-form': form, 'share-link': link, 'share-copy': copy, 'share-send': send, 'share-end': stop, 'share-close': close, 'share-choose': choose, 'share-name': name } = this.#at;
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (this.#shared) dialog.close();
      else void this.#share();
    });
    close.addEventListener('click', () => dialog.close());
    dialog.addEventListener('close', () => this.#beginning.abort());
    stop.addEventListener('click', () => void this.#stop());
    // A name that nobody sees is not checked.
    choose.addEventListener('toggle', () => (name.disabled = !choose.open));
    link.addEventListener('focus', () => link.select());
    copy.addEventListener('click', () => void this.#copy());
    send.hidden = !navigator.share;
    send.addEventListener('click', () => navigator.share({ title: 'Live video', url: link.value }).catch(() => {}));
    this.shows({ room: null, viewers: null });
  }

  /** Opens the dialog. `sound` tells whether a microphone is sent, `secured` whether the gateway wants a token. */
  open({ sound, secured }) {
    this.#at['share-problem'].hidden = true;
    this.#at['share-sound'].checked = sound;
    this.#at['share-token'].hidden = !secured;
    this.#at['share-dialog'].showModal();
    this.#focus();
  }

  /** Shows the room that the session publishes to, if any, and the number of its viewers. */
  shows({ room, viewers }) {
    const { share, 'share-count': count, 'share-before': before, 'share-after': after, 'share-title': title, 'share-link': link, 'share-begin': begin, 'share-end': end, 'share-close': close, 'share-audience': audience } = this.#at;
    this.#shared = room;
    share.ariaPressed = String(Boolean(room));
    share.ariaLabel = room ? `Shared with others. ${audienceText(viewers)}` : 'Share with others';
    share.title = room ? audienceText(viewers) : 'Share with others';
    count.textContent = room && viewers !== null ? viewers : '';
    [before.hidden, after.hidden, end.hidden] = [Boolean(room), !room, !room];
    title.textContent = room ? 'Others can watch' : 'Let others watch';
    begin.textContent = room ? 'Done' : 'Share';
    close.hidden = Boolean(room);
    if (!room) return;
    link.value = linkTo(room);
    const text = audienceText(viewers);
    if (audience.textContent !== text) audience.textContent = text;
  }

  async #share() {
    const { 'share-name': name, 'share-choose': choose, 'share-sound': sound } = this.#at;
    const chosen = choose.open ? name.value.trim() : '';
    const room = chosen || (this.#room ??= randomRoom());
    this.#beginning = new AbortController();
    const { signal } = this.#beginning;
    await this.#busy(() => this.#begin({ room, sound: sound.checked, signal }).catch((error) => signal.aborted || Promise.reject(error)));
  }

  async #stop() {
    await this.#busy(() => this.#end());
    this.#at['share-dialog'].close();
  }

  async #busy(work) {
    const { 'share-begin': begin, 'share-end': end, 'share-problem': problem } = this.#at;
    problem.hidden = true;
    begin.disabled = end.disabled = true;
    try {
      await work();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    } finally {
      begin.disabled = end.disabled = false;
    }
    this.#focus();
  }

  #focus() {
    this.#at[this.#shared ? 'share-copy' : 'share-begin'].focus();
  }

  async #copy() {
    const { 'share-link': link, 'share-copy': copy } = this.#at;
    // Pages that are not secure have no clipboard, and a browser may refuse it.
    const copied = await navigator.clipboard?.writeText(link.value).then(() => true, () => false);
    link.select();
    copy.textContent = copied || document.execCommand('copy') ? 'Copied' : 'Press Ctrl+C';
    setTimeout(() => (copy.textContent = 'Copy'), COPIED_FOR_MS);
  }
}

/**
 * Returns the link to the page of a viewer. Browsers send no part of it after the `#` to a server,
 * so the name is in no log of the page's requests.
 */
export function linkTo(room, base = document.baseURI) {
  return new URL(`watch#room=${encodeURIComponent(room)}`, new URL('.', base)).href;
}
