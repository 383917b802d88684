/** The control channel: changes go out and are matched with their acks; what the gateway tells is handed to `listeners`. */

import { OoblexError, problemOf } from './errors.js';
import { parsedObject } from './http.js';

const ACK_TIMEOUT_MS = 5_000;
/** Messages that are handed on as they are, by their type. */
const HANDED_ON = ['stats', 'detections', 'service', 'bye'];

export class Control {
  #channel;
  #timeoutMs;
  #pending = new Map();
  #lastId = 0;
  #ended = null;

  constructor(channel, { timeoutMs = ACK_TIMEOUT_MS } = {}) {
    this.#channel = channel;
    this.#timeoutMs = timeoutMs;
    this.listeners = {};
    channel.onmessage = ({ data }) => this.#route(data);
    channel.onclose = () => {
      this.close(new OoblexError('closed'));
      this.listeners.closed?.();
    };
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
    this.listeners.heard?.();
    if (message?.type === 'ack') this.#settle(message.id, 'resolve', message);
    else if (message?.type === 'error') this.#fail(message);
    // Other types belong to newer gateways.
    else if (HANDED_ON.includes(message?.type)) this.listeners[message.type]?.(message);
  }

  #fail({ id, problem: given }) {
    const problem = problemOf(given, 0);
    if (this.#pending.has(id)) this.#settle(id, 'reject', new OoblexError('effect-rejected', { problem }));
    else this.listeners.error?.(new OoblexError('gateway-error', { problem }));
  }

  #settle(id, how, value) {
    const pending = this.#pending.get(id);
    if (!pending) return;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    pending[how](value);
  }
}
