/**
 * Input tracks of a session: one video track and optionally an audio track, each from a stream that
 * the session opened or was given.
 *
 * Owns their lifetime: streams that the session opened are stopped when they are no longer used,
 * streams that it was given are not. Refuses to know connections.
 */

import { isStream, openCamera, stopStream, videoTrack } from './sources.js';

/** @typedef {{stream: MediaStream, track: MediaStreamTrack, owned: boolean}} Input */

export class Inputs {
  /** The input as one stream whose tracks change. */
  stream = new MediaStream();
  /** @type {Input | null} */
  #video = null;
  /** @type {Input | null} */
  #audio = null;
  #muted = { video: false, audio: false };
  #ended;
  #onEnded = () => this.#ended?.();

  /**
   * `ended` is called when the video track ends by itself: the camera was unplugged, or sharing was
   * stopped.
   */
  constructor(ended) {
    this.#ended = ended;
  }

  get tracks() {
    return { video: this.#video?.track ?? null, audio: this.#audio?.track ?? null };
  }

  get muted() {
    return { ...this.#muted };
  }

  /**
   * Returns the arguments for `take` from `source`, a stream or constraints for a camera.
   *
   * @param {MediaStream | MediaStreamConstraints} [source]
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<{video: Input, audio: Input | null}>}
   */
  static async of(source, { signal } = {}) {
    const owned = !isStream(source);
    const stream = owned ? await openCamera(source, { signal }) : source;
    const [sound] = stream.getAudioTracks();
    return { video: { stream, track: videoTrack(stream), owned }, audio: sound ? { stream, track: sound, owned } : null };
  }

  /**
   * Takes over the given tracks, as `{stream, track, owned}`, and releases those that they replace;
   * kinds that are not given stay.
   *
   * @param {{video?: Input | null, audio?: Input | null}} inputs
   */
  take({ video = this.#video, audio = this.#audio }) {
    const before = present([this.#video, this.#audio]);
    this.#video?.track.removeEventListener?.('ended', this.#onEnded);
    [this.#video, this.#audio] = [video, audio];
    this.#video?.track.addEventListener?.('ended', this.#onEnded);
    // A given track that is disabled and was never muted here stays as it is.
    for (const [kind, muted] of Object.entries(this.#muted)) if (muted) this.mute(kind, muted);
    const inputs = present([video, audio]);
    showTracks(this.stream, inputs.map(({ track }) => track));
    const kept = new Set(inputs.map(({ stream }) => stream));
    for (const { stream, owned } of before) if (owned && !kept.has(stream)) stopStream(stream);
  }

  /**
   * Sends black instead of the picture, or silence; also applies to tracks that are taken later.
   */
  mute(kind, muted) {
    this.#muted[kind] = muted;
    const { [kind]: track } = this.tracks;
    if (track) track.enabled = !muted;
  }

  /**
   * Stops the source of the video track if the session opened it, because some devices allow only
   * one camera at a time.
   */
  stopPicture() {
    if (this.#video?.owned) this.#video.track.stop();
  }

  /** Releases all tracks. */
  release() {
    this.#video?.track.removeEventListener?.('ended', this.#onEnded);
    for (const { stream, owned } of present([this.#video, this.#audio])) if (owned) stopStream(stream);
  }
}

/** @param {(Input | null)[]} inputs */
function present(inputs) {
  return inputs.filter((input) => input !== null);
}

/**
 * Gives a stream exactly these tracks. Old tracks are removed before new ones are added, because an
 * element of Firefox shows no other track when the one that it shows is removed, except one that is
 * added later. Meanwhile a copy of an old track stays, because browsers may pause an element whose
 * stream is empty.
 */
export function showTracks(stream, tracks) {
  const before = stream.getTracks();
  const added = tracks.filter((track) => !before.includes(track));
  const copy = added.length ? before[0]?.clone?.() : null;
  if (copy) stream.addTrack(copy);
  for (const track of before) if (!tracks.includes(track)) stream.removeTrack(track);
  for (const track of added) stream.addTrack(track);
  if (!copy) return;
  stream.removeTrack(copy);
  copy.stop();
}
