/**
 * The control channel sends changes, matches them with their acks, and passes the gateway's
 * messages to `listeners`.
 */

import { OoblexError, problemOf } from './errors.js';
import { parsedObject } from './http.js';

const ACK_TIMEOUT_MS = 5_000;
/** Message types that are passed on unchanged. */
const HANDED_ON = ['stats', 'detections', 'service', 'settings', 'bye'];
/**
 * Message types that the gateway sends only once, and the number of messages kept until somebody
 * listens.
 */
const KEPT = ['service', 'settings', 'bye', 'error'];
const MOST_KEPT = 32;

export class Control {
  #channel;
  #timeoutMs;
  #pending = new Map();
  #lastId = 0;
  #ended = null;
  #listeners = {};
  #listening = false;
  /** Messages that arrived before somebody listened. */
  #early = [];

  constructor(channel, { timeoutMs = ACK_TIMEOUT_MS } = {}) {
    this.#channel = channel;
    this.#timeoutMs = timeoutMs;
    channel.onmessage = ({ data }) => this.#route(data);
    channel.onclose = () => {
      this.close(new OoblexError('closed'));
      this.#listeners.closed?.();
    };
  }

  /** Sets the listeners, and passes on the kept messages, asynchronously and in order. */
  set listeners(listeners) {
    this.#listeners = listeners;
    if (this.#early.length) setTimeout(() => this.#listen());
    else this.#listening = true;
  }

  #listen() {
    this.#listening = true;
    for (const message of this.#early.splice(0)) if (!this.#ended) this.#tell(message);
  }

  /** Sends a change; resolves with its ack. */
  request(message) {
    if (this.#ended) return Promise.reject(this.#ended);
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#settle(id, 'reject', new OoblexError('timeout')), this.#timeoutMs);
      this.#pending.set(id, { resolve, reject, timer });
      try {
        this.#channel.send(JSON.stringify({ ...message, id }));
      } catch (cause) {
        this.#settle(id, 'reject', new OoblexError('closed', { cause }));
      }
    });
  }

  /** Ends the channel; changes without an ack are rejected with `error`. */
  close(error) {
    if (this.#ended) return;
    this.#ended = error;
    this.#channel.onmessage = this.#channel.onclose = null;
    for (const id of [...this.#pending.keys()]) this.#settle(id, 'reject', error);
    this.#channel.close();
  }

  #route(data) {
    const message = parsedObject(data);
    this.#listeners.heard?.();
    if (message?.type === 'ack') this.#settle(message.id, 'resolve', message);
    else if (message?.type === 'error' && this.#pending.has(message.id)) this.#settle(message.id, 'reject', new OoblexError('effect-rejected', { problem: problemOf(message.problem, 0) }));
    else if (this.#listening) this.#tell(message);
    else if (KEPT.includes(message?.type) && this.#early.length < MOST_KEPT) this.#early.push(message);
  }

  #tell(message) {
    if (message?.type === 'error') this.#listeners.error?.(new OoblexError('gateway-error', { problem: problemOf(message.problem, 0) }));
    // Newer gateways may send other types.
    else if (HANDED_ON.includes(message?.type)) this.#listeners[message.type]?.(message);
  }

  #settle(id, how, value) {
    const pending = this.#pending.get(id);
    if (!pending) return;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    pending[how](value);
  }
}
