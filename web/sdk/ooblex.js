/**
 * Ooblex in the browser: sends the camera to a gateway and receives the video with the effect,
 * publishes it to a room, and watches rooms.
 *
 * This is the only module to import; the other files are its parts. `connect` and `publish` open
 * the source, then a `Link` (one connection, discarded when it breaks), and wrap both in a `Session`
 * (the object that the caller keeps). `watch` does so with a `ViewLink` and a `Viewer`. No
 * dependencies.
 */

import { Access } from './access.js';
import { OoblexError } from './errors.js';
import { defaults, effects, gatewayBase } from './http.js';
import { Inputs } from './inputs.js';
import { Link } from './link.js';
import { checkedRoom, listRooms, randomRoom } from './rooms.js';
import { Session } from './session.js';
import { openCamera, openFile, openMicrophone, openScreen, stopStream } from './sources.js';
import { ViewLink } from './viewlink.js';
import { Viewer, isWaiting } from './viewer.js';

export { OoblexError, Session, Viewer, defaults, effects, listRooms, openCamera, openFile, openMicrophone, openScreen, randomRoom, stopStream };

const CONNECT_TIMEOUT_MS = 10_000;

/**
 * Opens a session. Resolves when media flows and the control channel is open; the first picture may
 * arrive a moment later.
 *
 * @type {typeof import('./ooblex.js').connect}
 */
export function connect(options = {}) {
  return opened(options);
}

/**
 * Publishes to a room. Resolves when media flows and the control channel is open.
 *
 * @type {typeof import('./ooblex.js').publish}
 */
export async function publish(room, { echo = false, ...options } = {}) {
  return opened(options, { room: checkedRoom(room), echo });
}

/**
 * Watches a room. Resolves when media can flow; with `wait` also while nobody publishes.
 *
 * @type {typeof import('./ooblex.js').watch}
 */
export async function watch(room, { url, token, headers, credentials, iceServers, codec, signal, timeoutMs = CONNECT_TIMEOUT_MS, reconnect, wait } = {}) {
  const wishes = { base: gatewayBase(url), access: new Access({ token, headers, credentials }), room: checkedRoom(room), iceServers, codec, signal, timeoutMs, reconnect, wait };
  try {
    return new Viewer(await ViewLink.open(wishes), null, wishes);
  } catch (/** @type {any} */ error) {
    if (wait && isWaiting(error)) return new Viewer(null, error, wishes);
    throw error;
  }
}

/**
 * @param {import('./ooblex.js').ConnectOptions} options
 * @param {{room?: string, echo?: boolean}} [place]
 */
async function opened({ url, token, headers, credentials, iceServers, effect, params, source, codec, signal, timeoutMs = CONNECT_TIMEOUT_MS, reconnect }, place = {}) {
  const base = gatewayBase(url);
  const access = new Access({ token, headers, credentials });
  const input = await Inputs.of(source, { signal });
  const tracks = { video: input.video.track, audio: input.audio?.track ?? null };
  try {
    const link = await Link.open({ base, access, iceServers, input: tracks, effect, params, codec, signal, timeoutMs, ...place });
    return new Session(link, { base, access, iceServers, input, effect, params, codec, timeoutMs, reconnect, ...place });
  } catch (error) {
    if (input.video.owned) stopStream(input.video.stream);
    throw error;
  }
}

/** @type {typeof import('./ooblex.js').Ooblex} */
export const Ooblex = { connect, publish, watch, listRooms, effects, openCamera, openFile, openMicrophone, openScreen, defaults };
