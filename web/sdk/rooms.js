/**
 * Rooms of a gateway: the addresses at which a room is published (WHIP) and watched (WHEP), and the
 * list of rooms.
 *
 * Owns these requests and the meaning of their answers. Refuses to know connections.
 */

import { Access } from './access.js';
import { OoblexError } from './errors.js';
import { accepted, call, foreign, gatewayBase } from './http.js';

/** The characters of a name, which a URL contains unchanged. */
const NAME = /^[A-Za-z0-9._~-]{1,64}$/;

/** Returns a room's name, or throws if no room has such a name. */
export function checkedRoom(room) {
  if (typeof room === 'string' && NAME.test(room) && !/^\.+$/.test(room)) return room;
  throw new TypeError('the name of a room has 1 to 64 letters, digits and -._~');
}

/**
 * Returns the name of a room that nobody can guess: 128 random bits.
 *
 * @type {typeof import('./ooblex.js').randomRoom}
 */
export function randomRoom() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

/**
 * Returns the rooms that the caller may watch.
 *
 * @type {typeof import('./ooblex.js').listRooms}
 */
export async function listRooms({ url, token, headers, credentials, signal } = {}) {
  const [base, access] = [gatewayBase(url), new Access({ token, headers, credentials })];
  const list = (bearer) => call(new URL('api/rooms', base), access.init(bearer, { signal, cache: 'no-store' }), 'gateway-error');
  const { rooms } = await access.authorized(list, { signal });
  return rooms.map(({ room, active, viewer_count: viewers }) => ({ room, active, viewers }));
}

/**
 * Publishes to a room by WHIP (RFC 9725). Returns the answer with the id of the session and its
 * secret, as `POST /offer` does.
 */
export async function publishOffer(sdp, { base, room, effect, params, echo }, init, unwanted) {
  const url = new URL(`whip/${room}`, base);
  if (effect) url.searchParams.set('effect', effect);
  if (Object.keys(params ?? {}).length) url.searchParams.set('params', JSON.stringify(params));
  if (echo) url.searchParams.set('echo', 'true');
  const { answer, headers } = await posted(url, sdp, init, unwanted);
  const session = /^"(.+)"$/.exec(headers.get('etag') ?? '')?.[1];
  return { ...answer, session };
}

/**
 * Watches a room by WHEP. Returns the answer with the URL of the session, `resource`, which
 * contains its secret.
 */
export async function watchOffer(sdp, { base, room }, init, unwanted) {
  const { answer, url } = await posted(new URL(`whep/${room}`, base), sdp, init, unwanted);
  // A proxy may serve the gateway below a path that `Location` does not have.
  return { ...answer, resource: new URL(`${room}/${answer.secret}`, url) };
}

async function posted(url, sdp, init, unwanted) {
  const request = { ...init, method: 'POST', body: sdp };
  request.headers.set('content-type', 'application/sdp');
  const answer = await accepted(url, request, 'offer-rejected', unwanted);
  const secret = answer.headers.get('location')?.split('/').at(-1);
  if (!answer.text.startsWith('v=0') || !secret) throw foreign(url, answer);
  return { answer: { sdp: answer.text, secret, ice_servers: iceServers(answer.headers.get('link')) }, headers: answer.headers, url: answer.url };
}

/**
 * Returns the STUN and TURN servers of a `Link` header, such as
 * `<turn:host:3478?transport=udp>; rel="ice-server"; username="…"; credential="…"`.
 *
 * @param {string | null} header
 * @returns {RTCIceServer[]}
 */
export function iceServers(header) {
  const links = [...(header ?? '').matchAll(/<([^>]*)>([^<]*)/g)].map(([, urls, rest]) => {
    /** @type {Record<string, string>} */
    const { rel, username, credential } = Object.fromEntries([...rest.matchAll(/;\s*([\w-]+)="([^"]*)"/g)].map(([, name, value]) => [name, value]));
    return { rel, server: { urls, ...(username && { username, credential }) } };
  });
  return links.filter(({ rel }) => rel === 'ice-server').map(({ server }) => server);
}

/**
 * Reads server-sent events from the body of a response, as `{event, data}`.
 *
 * @param {ReadableStream<Uint8Array>} body
 */
export async function* serverSentEvents(body) {
  const reader = body.pipeThrough(/** @type {ReadableWritablePair<string, any>} */ (new TextDecoderStream())).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop() ?? '';
    for (const block of blocks) {
      const fields = [...block.matchAll(/^(event|data): ?(.*)$/gm)].map(([, name, text]) => [name, text]);
      const { event, data } = Object.fromEntries(fields);
      if (event) yield { event, data: data ?? '' };
    }
  }
}
