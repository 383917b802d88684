/**
 * Ooblex in the browser: sends the camera to a gateway and receives the video with the effect.
 *
 * This is the only module to import; the other files are its parts. `connect` opens the source,
 * then a `Link` (one connection, discarded when it breaks), and wraps both in a `Session` (the
 * object that the caller keeps). No dependencies.
 */

import { Access } from './access.js';
import { OoblexError } from './errors.js';
import { defaults, effects, gatewayBase } from './http.js';
import { Inputs } from './inputs.js';
import { Link } from './link.js';
import { Session } from './session.js';
import { openCamera, openFile, openMicrophone, openScreen, stopStream } from './sources.js';

export { OoblexError, Session, defaults, effects, openCamera, openFile, openMicrophone, openScreen, stopStream };

const CONNECT_TIMEOUT_MS = 10_000;

/**
 * Opens a session. Resolves when media flows and the control channel is open; the first picture may
 * arrive a moment later.
 *
 * @type {typeof import('./ooblex.js').connect}
 */
export async function connect({ url, token, headers, credentials, iceServers, effect, params, source, codec, signal, timeoutMs = CONNECT_TIMEOUT_MS, reconnect } = {}) {
  const base = gatewayBase(url);
  const access = new Access({ token, headers, credentials });
  const input = await Inputs.of(source, { signal });
  const tracks = { video: input.video.track, audio: input.audio?.track ?? null };
  try {
    const link = await Link.open({ base, access, iceServers, input: tracks, effect, params, codec, signal, timeoutMs });
    return new Session(link, { base, access, iceServers, input, effect, params, codec, timeoutMs, reconnect });
  } catch (error) {
    if (input.video.owned) stopStream(input.video.stream);
    throw error;
  }
}

/** @type {typeof import('./ooblex.js').Ooblex} */
export const Ooblex = { connect, effects, openCamera, openFile, openMicrophone, openScreen, defaults };
