/**
 * HTTP requests to the gateway. Owns URLs and answers; refuses to know the contents of requests.
 */

import { Access } from './access.js';
import { OoblexError, problemOf } from './errors.js';

/** Delay before a request is repeated after a change of the network. */
const AGAIN_AFTER_MS = 500;

/**
 * Status codes whose meaning does not depend on the request.
 *
 * @type {Record<number, import('./ooblex.js').OoblexErrorCode>}
 */
const CODE_OF_STATUS = { 401: 'unauthorized', 403: 'forbidden', 421: 'wrong-host' };

/**
 * Problems that have an error code of their own.
 *
 * @type {Record<string, import('./ooblex.js').OoblexErrorCode>}
 */
const CODE_OF_TYPE = {
  'urn:ooblex:problem:room-taken': 'room-taken',
  'urn:ooblex:problem:room-empty': 'room-empty',
  'urn:ooblex:problem:room-full': 'room-full',
};

/**
 * Returns the effects of a gateway, with their parameters and availability. Needs no token; headers
 * and cookies are for proxies.
 *
 * @type {typeof import('./ooblex.js').effects}
 */
export async function effects(url, { signal, headers, credentials } = {}) {
  return listed(gatewayBase(url), new Access({ headers, credentials }), signal);
}

/** Returns the effects of the gateway at `base`. */
export async function listed(base, access, signal) {
  return call(new URL('api/effects', base), access.init(null, { signal }), 'gateway-error');
}

/**
 * Returns the default value of every parameter, from an effect's `parameters`.
 *
 * @type {typeof import('./ooblex.js').defaults}
 */
export function defaults(schema) {
  const properties = Object.entries(schema?.properties ?? {});
  return Object.fromEntries(properties.filter(([, p]) => 'default' in p).map(([name, p]) => [name, structuredClone(p.default)]));
}

/**
 * Returns the answer of an HTTP request as JSON; `code` is the error code for a refusal by the
 * gateway itself. The request is not repeated once `unwanted` is aborted.
 */
export async function call(url, init, code, unwanted = init?.signal) {
  const answer = await accepted(url, init, code, unwanted);
  const body = parsedObject(answer.text);
  if (!body) throw foreign(url, answer);
  return body;
}

/** Returns the answer of an HTTP request that the gateway accepts; arguments as for `call`. */
export async function accepted(url, init, code, unwanted = init?.signal) {
  let answer;
  try {
    answer = await ask(url, init, unwanted);
  } catch (cause) {
    if (unwanted?.aborted) throw cause;
    throw new OoblexError('gateway-unreachable', { detail: `${url.origin} does not answer: check that the gateway runs and that its address is right.`, cause });
  }
  if (answer.ok) return answer;
  const body = parsedObject(answer.text);
  if (body?.title) throw new OoblexError(CODE_OF_TYPE[body.type] ?? CODE_OF_STATUS[answer.status] ?? code, { problem: problemOf(body, answer.status), retryAfterMs: answer.retryAfterMs });
  if (answer.status === 401) throw new OoblexError('unauthorized', { detail: `${url.origin} asks for credentials, but not as an Ooblex gateway does: a proxy in between wants its own, such as a header or a cookie.` });
  throw foreign(url, answer);
}

/** Returns the error for an answer that is not one of a gateway. */
export function foreign(url, { status }) {
  return new OoblexError('gateway-unreachable', { detail: `${url} answered with status ${status}, but not as an Ooblex gateway does: check the address, and a proxy in between.` });
}

/**
 * Returns an answer and its text. A request without an answer is sent once more, because a
 * browser drops pending requests when its network changes (another Wi-Fi, a cable, an address that
 * comes late). If the answer to an offer was lost, its session gets no media, and the gateway ends
 * it.
 */
async function ask(url, init, unwanted) {
  const once = async () => {
    const response = await fetch(url, init);
    const { ok, status, headers } = response;
    return { ok, status, headers, url: response.url, retryAfterMs: retryAfterMs(headers.get('retry-after'), Date.now()), text: await response.text() };
  };
  try {
    return await once();
  } catch {
    unwanted?.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, AGAIN_AFTER_MS));
    unwanted?.throwIfAborted();
    return once();
  }
}

/**
 * Returns the URL of a gateway with a trailing slash, so that paths are relative to it. Default: the
 * gateway that served this module, which may be below a path of a proxy; in a bundle, the origin of
 * the page.
 *
 * @param {string | URL} [url]
 */
export function gatewayBase(url = servedBy(import.meta.url) ?? globalThis.location?.origin) {
  if (url === undefined) throw new TypeError('url is missing: outside of a page, name the gateway');
  const base = new URL(url, globalThis.location?.href);
  if (!base.pathname.endsWith('/')) base.pathname += '/';
  [base.search, base.hash] = ['', ''];
  return base;
}

/** Returns the gateway that served this module; undefined if the module was not served by one. */
export function servedBy(module) {
  return /^(https?:.*\/)sdk\/http\.js([?#].*)?$/.exec(module)?.[1];
}

/**
 * Returns the URL of a session in the gateway's API, or of a resource below it, such as `events`.
 */
export function sessionUrl(base, id, below = '') {
  return new URL(`api/sessions/${encodeURIComponent(id)}${below && `/${below}`}`, base);
}

/**
 * Returns the milliseconds of a `Retry-After` header (RFC 9110, 10.2.3): seconds, or a date. Null
 * if it is missing or invalid.
 */
export function retryAfterMs(value, now) {
  const text = value?.trim();
  if (!text) return null;
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now;
  return Number.isFinite(ms) ? Math.max(0, ms) : null;
}

/** Returns the object in a JSON text, or null. */
export function parsedObject(text) {
  try {
    const value = JSON.parse(text);
    return value && typeof value === 'object' && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}
