/**
 * Sources: a camera, the screen, a file. Each is opened as a MediaStream, with errors of this
 * module.
 *
 * Owns the resources that must be released with a stream. Refuses to know sessions.
 */

import { OoblexError, cameraError } from './errors.js';

const CAMERA = { video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } }, audio: false };
const FILE_FPS = 30;

/** Resources that end with a stream, by stream. */
const endings = new WeakMap();

/**
 * Opens the camera (by default 640×480 at 30 frames per second, without audio).
 *
 * @type {typeof import('./ooblex.js').openCamera}
 */
export function openCamera(constraints = CAMERA, options = {}) {
  return open('getUserMedia', constraints, 'camera', options);
}

/**
 * Opens a microphone: any, the one with this `deviceId`, or by constraints.
 *
 * @type {typeof import('./ooblex.js').openMicrophone}
 */
export function openMicrophone(wanted = true, options = {}) {
  const audio = typeof wanted === 'string' ? { deviceId: { exact: wanted } } : wanted;
  return open('getUserMedia', { audio, video: false }, 'microphone', options);
}

/**
 * Asks the user for a screen, a window or a tab (by default at most 1920×1080 at 30 frames per
 * second, without audio).
 *
 * @type {typeof import('./ooblex.js').openScreen}
 */
export function openScreen(constraints = screenConstraints(), options = {}) {
  return open('getDisplayMedia', constraints, 'screen', options);
}

/**
 * Plays a video file in a loop, without audio. It works if the browser can play the file.
 *
 * @type {typeof import('./ooblex.js').openFile}
 */
export async function openFile(file, { signal } = {}) {
  signal?.throwIfAborted();
  const url = URL.createObjectURL(file);
  const video = Object.assign(document.createElement('video'), { src: url, loop: true, muted: true, playsInline: true });
  const release = () => {
    video.removeAttribute('src');
    video.load();
    URL.revokeObjectURL(url);
  };
  try {
    await new Promise((resolve, reject) => {
      video.addEventListener('loadeddata', resolve, { once: true });
      video.addEventListener('error', () => reject(new OoblexError('file-unreadable', { detail: `${/** @type {Partial<File>} */ (file).name ?? 'The file'} is not a video that this browser can play: choose an MP4 or WebM file.`, cause: video.error })), { once: true });
      signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
    await video.play();
  } catch (error) {
    release();
    throw error;
  }
  const { stream, stop } = captured(video);
  endings.set(stream, () => {
    stop();
    video.pause();
    release();
  });
  return stream;
}

/**
 * Stops all tracks of a stream and the element that played into it.
 *
 * @type {typeof import('./ooblex.js').stopStream}
 */
export function stopStream(stream) {
  for (const track of stream.getTracks()) track.stop();
  endings.get(stream)?.();
  endings.delete(stream);
}

/**
 * Returns whether this is a stream and not constraints for one.
 *
 * @returns {source is MediaStream}
 */
export function isStream(source) {
  return typeof source?.getVideoTracks === 'function';
}

/** Returns the video track of a stream. */
export function videoTrack(stream) {
  const [track] = stream.getVideoTracks();
  if (!track) throw new OoblexError('no-camera', { detail: 'The source has no video track: give one that has.' });
  return track;
}

/**
 * Returns constraints for a picture of at most 1920×1080, or 1080×1920 on an upright screen; the
 * browser scales larger ones down.
 */
function screenConstraints({ width, height } = globalThis.screen ?? {}) {
  const [longer, shorter] = [{ max: 1920 }, { max: 1080 }];
  const size = height > width ? { width: shorter, height: longer } : { width: longer, height: shorter };
  return { video: { ...size, frameRate: { ideal: 30 } }, audio: false };
}

/**
 * @param {'getUserMedia' | 'getDisplayMedia'} method
 * @param {MediaStreamConstraints} constraints
 * @param {string} what
 * @param {{signal?: AbortSignal}} options
 * @returns {Promise<MediaStream>}
 */
async function open(method, constraints, what, { signal }) {
  signal?.throwIfAborted();
  const devices = globalThis.navigator?.mediaDevices;
  if (!globalThis.isSecureContext || !devices) throw new OoblexError('insecure-context');
  if (!devices[method]) throw new OoblexError('not-supported', { detail: `This browser cannot give a page the ${what}.` });
  let stream;
  try {
    stream = await devices[method](constraints);
  } catch (cause) {
    throw cameraError(cause, what);
  }
  if (signal?.aborted) {
    stopStream(stream);
    signal.throwIfAborted();
  }
  return stream;
}

/**
 * Returns the picture of a playing element as a stream. Where the browser captures elements, frames
 * come from the decoder, also in a background tab.
 */
function captured(video) {
  return video.captureStream ? { stream: new MediaStream(video.captureStream().getVideoTracks()), stop: () => {} } : drawn(video);
}

/**
 * Returns the picture of a playing element, drawn on a canvas frame by frame. Browsers draw nothing
 * in a background tab, so a timer takes over there, which they let run about once per second.
 */
function drawn(video) {
  const canvas = Object.assign(document.createElement('canvas'), { width: video.videoWidth, height: video.videoHeight });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', { alpha: false }));
  const draw = () => context.drawImage(video, 0, 0, canvas.width, canvas.height);
  draw();
  let stopped = false;
  const calls = 'requestVideoFrameCallback' in video;
  const next = () => {
    if (stopped) return;
    draw();
    video.requestVideoFrameCallback(next);
  };
  if (calls) video.requestVideoFrameCallback(next);
  const timer = setInterval(() => (!calls || document.hidden) && draw(), 1000 / FILE_FPS);
  const stop = () => {
    stopped = true;
    clearInterval(timer);
  };
  return { stream: canvas.captureStream(FILE_FPS), stop };
}
