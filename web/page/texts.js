/** Texts of the page about the state of a session. */

/** A delay longer than the SDK's own maximum. */
const LONG_DELAY_MS = 10_000;

export const ERROR_TITLES = {
  'insecure-context': 'This page cannot use the camera',
  'not-supported': 'This browser cannot do that',
  'no-camera': 'No camera',
  'permission-denied': 'No permission',
  'camera-busy': 'The camera is busy',
  'file-unreadable': 'This file cannot be played',
  'gateway-unreachable': 'The gateway does not answer',
  'offer-rejected': 'The gateway refused to connect',
  'room-taken': 'Somebody else uses this name',
  'room-empty': 'Nobody is sending',
  'room-full': 'No place is free',
  'connection-failed': 'No media connection',
  'effect-rejected': 'The effect was not changed',
  'gateway-error': 'The gateway reported a problem',
  'gave-up': 'The connection could not be restored',
  unauthorized: 'The gateway does not let you in',
  forbidden: 'The gateway does not allow this',
  'wrong-host': 'The gateway does not answer to this name',
  'no-token': 'A token is needed',
  expired: 'Your access has expired',
  closed: 'The session has ended',
  timeout: 'The change was not confirmed',
};

/** Titles for the end of a session, by the gateway's reason. */
export const END_TITLES = {
  ended: 'The session was ended by the operator',
  idle: 'The session ended because nothing was sent',
  time_limit: 'The session reached its maximum duration',
  undecodable: 'The gateway could not decode the picture',
  budget: 'The session used too much CPU time of the gateway',
  too_many_channels: 'The session used too many data channels',
  publisher_ended: 'The publisher has ended',
  broken: 'The gateway had an error in this session',
};

export const STATUS = {
  idle: 'Ready',
  camera: 'Asking for the camera',
  connecting: 'Connecting',
  live: 'Live',
  interrupted: 'Interrupted',
  reconnecting: 'Reconnecting',
  failed: 'Not connected',
};

export const COVER = {
  idle: 'Choose an effect and press start. Your video is sent only to this gateway.',
  camera: 'Allow the camera when the browser asks.',
  connecting: 'Connecting…',
  live: 'Waiting for the first picture…',
  interrupted: 'Waiting for the connection…',
  reconnecting: 'Waiting for the connection…',
  failed: '',
};

/**
 * Returns the notice for a picture that is larger than the gateway processes, `{title, text,
 * urgent}`; null for any other. Takes the gateway's statistics.
 */
export function scaledNotice({ received, processed }) {
  if (!received || !processed || processed.width * processed.height >= received.width * received.height) return null;
  const size = ({ width, height }) => `${width}×${height}`;
  return { urgent: false, title: 'The picture is scaled down by the gateway', text: `It is sent at ${size(received)}, which is larger than the gateway allows, and comes back at ${size(processed)}. Choose a lower resolution to send less.` };
}

/** Explains why the page cannot use the camera, and the two remedies. */
export function insecureText({ hostname, port }) {
  const at = port || '80';
  return (
    `It was opened over plain http from ${hostname}; browsers allow the camera only on https pages and on localhost. ` +
    `On the gateway's own machine open http://localhost:${at}/. From this machine either put https in front of the gateway, or ` +
    `run “ssh -L ${at}:localhost:${at} ${hostname}” and open http://localhost:${at}/ here.`
  );
}

/**
 * Returns the text shown while reconnecting: the reason for the loss, and the delay if it is long.
 */
export function reconnectingText({ reason, delayMs }) {
  const why = {
    draining: 'The gateway is being replaced. The last picture is held; connecting again…',
    stopping: 'The gateway was stopped. The last picture is held; trying again…',
    broken: 'The gateway had an error in this session. The last picture is held; connecting again…',
    expired: 'Your access has expired. The last picture is held until you give another token.',
  }[reason] ?? 'The connection was lost. The last picture is held; trying again…';
  return delayMs >= LONG_DELAY_MS ? `${why} The gateway asks to wait for ${Math.round(delayMs / 1000)} s.` : why;
}

/** Returns the text shown while the source, a camera, a screen or a file, delivers no picture. */
export function silentText(kind) {
  return {
    screen: 'The shared screen sends no picture: is its window closed or hidden? The last picture is held.',
    file: 'The file sends no picture. The last picture is held; choose the file again, or another source.',
  }[kind] ?? 'The camera sends no picture: is it switched off, covered, or used by another program? The last picture is held.';
}

/** Returns why the picture is held or is a placeholder; empty if it is neither. */
export function waitingText({ service, title, placeholder, waiting, long, gone }) {
  const why = { no_worker: `No worker serves ${title} now. `, broker_down: 'The gateway cannot reach its workers. ' }[service] ?? '';
  const what = placeholder ? 'A placeholder is shown' : 'The last picture is held';
  if (gone && service === 'no_worker') return `${title} is not offered any more. ${what}; choose another effect.`;
  if (why) return `${why}${what}; it resumes by itself.`;
  return waiting ? `${what} until a result arrives.${long ? ' The workers may be busy or stuck.' : ''}` : '';
}

/** Returns how many people watch; `null` if that is not known yet. */
export function audienceText(viewers) {
  if (!viewers) return 'Nobody is watching yet.';
  return viewers === 1 ? 'One person is watching.' : `${viewers} people are watching.`;
}

/** The state of a viewer, in the header of its page. */
export const WATCH_STATUS = {
  connecting: 'Connecting',
  live: 'Live',
  interrupted: 'Interrupted',
  reconnecting: 'Reconnecting',
  waiting: 'Waiting',
  closed: 'Not connected',
  failed: 'Not connected',
};

/**
 * Returns what a viewer is told instead of the picture, or on one that is held, `{title, text}`.
 *
 * @param {{state: string, isAway: boolean, hasPicture: boolean, code?: string}} about `isAway`: the
 *   publisher sends no video; `code` of the last error
 */
export function watchText({ state, isAway, hasPicture, code }) {
  if (state === 'waiting' && code === 'room-full') {
    return { title: 'All places are taken', text: 'As many people are watching as may. This page gets a place by itself when somebody leaves.' };
  }
  if (state === 'waiting' && hasPicture) return { title: 'The stream has ended', text: 'If it begins again, it is shown here by itself.' };
  if (state === 'waiting' || (isAway && !hasPicture)) return { title: 'Nobody is sending yet', text: 'The picture is shown here by itself as soon as it begins.' };
  if (isAway) return { title: 'The sender is away. The last picture is held.', text: '' };
  if (state === 'interrupted' || state === 'reconnecting') {
    return hasPicture ? { title: 'The connection was lost. Trying again…', text: '' } : { title: 'Connecting again…', text: '' };
  }
  return { title: state === 'live' ? 'Waiting for the first picture…' : 'Connecting…', text: '' };
}

/**
 * Returns what a viewer is told about an error that ends watching, or about an incomplete link (`link`);
 * `isFinal` if trying again cannot help.
 */
export function watchProblem({ code, message, detail = message }) {
  if (code === 'link') return { title: 'This link is not complete', text: 'Ask whoever sent it to you to send it again.', isFinal: true };
  const titles = { unauthorized: 'You may not watch this', forbidden: 'You may not watch this', 'no-token': 'You need a token to watch this', expired: 'Your access has expired', closed: 'The connection has ended' };
  const texts = { 'no-token': 'Without a token or key this gateway shows you nothing. Ask whoever sent you the link for one.' };
  return { title: titles[code] ?? ERROR_TITLES[code] ?? 'Something went wrong in this page', text: texts[code] ?? detail, isFinal: false };
}
