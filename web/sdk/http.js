/** Calls to the gateway over HTTP. Owns addresses and answers; refuses to know what is asked for. */

import { Access } from './access.js';
import { OoblexError, problemOf } from './errors.js';

/** How long a network that has just changed is left alone. */
const AGAIN_AFTER_MS = 500;

/** Refusals that mean the same whatever was asked for. */
const CODE_OF_STATUS = { 401: 'unauthorized', 403: 'forbidden', 421: 'wrong-host' };

/** The effects of a gateway, with their parameters, and whether each is available now. Everybody may ask; headers and cookies are for proxies. */
export async function effects(url, { signal, headers, credentials } = {}) {
  return listed(gatewayBase(url), new Access({ headers, credentials }), signal);
}

/** The same, of the gateway at `base`. */
export async function listed(base, access, signal) {
  return call(new URL('api/effects', base), access.init(null, { signal }), 'gateway-error');
}

/** The value of every parameter when none is given, from an effect's `parameters`. */
export function defaults(schema) {
  const properties = Object.entries(schema?.properties ?? {});
  return Object.fromEntries(properties.filter(([, p]) => 'default' in p).map(([name, p]) => [name, structuredClone(p.default)]));
}

/** The answer of an HTTP call as JSON; `code` is for a refusal by the gateway itself. */
export async function call(url, init, code) {
  let answer;
  try {
    answer = await ask(url, init);
  } catch (cause) {
    if (init?.signal?.aborted) throw cause;
    throw new OoblexError('gateway-unreachable', { detail: `${url.origin} does not answer: check that the gateway runs and that its address is right.`, cause });
  }
  const body = parsedObject(answer.text);
  if (answer.ok && body) return body;
  if (!answer.ok && body?.title) throw new OoblexError(CODE_OF_STATUS[answer.status] ?? code, { problem: problemOf(body, answer.status), retryAfterMs: answer.retryAfterMs });
  if (answer.status === 401) throw new OoblexError('unauthorized', { detail: `${url.origin} asks for credentials, but not as an Ooblex gateway does: a proxy in between wants its own, such as a header or a cookie.` });
  throw new OoblexError('gateway-unreachable', { detail: `${url} answered with status ${answer.status}, but not as an Ooblex gateway does: check the address, and a proxy in between.` });
}

/**
 * Status and text of an answer. A request without one is sent once more: a browser drops what is under way when its network changes (another
 * Wi-Fi, a cable, an address that comes late). The session of an offer whose answer was lost gets no media, and is ended by the gateway.
 */
async function ask(url, init) {
  const once = async () => {
    const response = await fetch(url, init);
    return { ok: response.ok, status: response.status, retryAfterMs: retryAfterMs(response.headers.get('retry-after'), Date.now()), text: await response.text() };
  };
  try {
    return await once();
  } catch {
    init?.signal?.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, AGAIN_AFTER_MS));
    init?.signal?.throwIfAborted();
    return once();
  }
}

/** The address of a gateway, with a slash at its end, so that paths are below it. */
export function gatewayBase(url = globalThis.location?.origin) {
  const base = new URL(url, globalThis.location?.href);
  if (!base.pathname.endsWith('/')) base.pathname += '/';
  return base;
}

/** The address of a session in the gateway's API, or of what is below it, such as `events`. */
export function sessionUrl(base, id, below = '') {
  return new URL(`api/sessions/${encodeURIComponent(id)}${below && `/${below}`}`, base);
}

/** Milliseconds in a `Retry-After` header (RFC 9110, 10.2.3): seconds, or a date. Null where there is none that can be read. */
export function retryAfterMs(value, now) {
  const text = value?.trim();
  if (!text) return null;
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now;
  return Number.isFinite(ms) ? Math.max(0, ms) : null;
}

/** The object in a text of JSON; null where there is none. */
export function parsedObject(text) {
  try {
    const value = JSON.parse(text);
    return value && typeof value === 'object' && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}
