/** Calls to the gateway over HTTP. Owns addresses and answers; refuses to know what is asked for. */

import { OoblexError, problemOf } from './errors.js';

/** The effects of a gateway, with their parameters, and whether each is available now. */
export async function effects(url, { signal } = {}) {
  return call(new URL('api/effects', gatewayBase(url)), { signal }, 'gateway-error');
}

/** The value of every parameter when none is given, from an effect's `parameters`. */
export function defaults(schema) {
  const properties = Object.entries(schema?.properties ?? {});
  return Object.fromEntries(properties.filter(([, p]) => 'default' in p).map(([name, p]) => [name, structuredClone(p.default)]));
}

/** The answer of an HTTP call as JSON; `code` is for a refusal by the gateway itself. */
export async function call(url, init, code) {
  let response;
  try {
    response = await fetch(url, init);
  } catch (cause) {
    if (init?.signal?.aborted) throw cause;
    throw new OoblexError('gateway-unreachable', { detail: `${url.origin} does not answer: check that the gateway runs and that its address is right.`, cause });
  }
  const body = parsedObject(await response.text().catch(() => ''));
  if (response.ok && body) return body;
  if (!response.ok && body?.title) throw new OoblexError(code, { problem: problemOf(body, response.status) });
  throw new OoblexError('gateway-unreachable', { detail: `${url} answered with status ${response.status}, but not as an Ooblex gateway does: check the address, and a proxy in between.` });
}

/** The address of a gateway, with a slash at its end, so that paths are below it. */
export function gatewayBase(url = globalThis.location?.origin) {
  const base = new URL(url, globalThis.location?.href);
  if (!base.pathname.endsWith('/')) base.pathname += '/';
  return base;
}

/** The address of a session in the gateway's API. */
export function sessionUrl(base, id) {
  return new URL(`api/sessions/${encodeURIComponent(id)}`, base);
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
