/**
 * What a session sends: one picture and perhaps sound, each from a stream that the session opened itself or was given.
 *
 * Owns their lives: what the session opened is stopped when it is of no use any more, what it was given never. Refuses to know connections.
 */

import { isStream, openCamera, stopStream, videoTrack } from './sources.js';

export class Inputs {
  /** What is sent, as one stream whose tracks change. */
  stream = new MediaStream();
  #video = null;
  #audio = null;
  #muted = { video: false, audio: false };
  #ended;
  #onEnded = () => this.#ended?.();

  /** `ended` is called when the picture ends by itself: unplugged, or no longer shared. */
  constructor(ended) {
    this.#ended = ended;
  }

  get tracks() {
    return { video: this.#video?.track ?? null, audio: this.#audio?.track ?? null };
  }

  get muted() {
    return { ...this.#muted };
  }

  /** From `source`, a stream or constraints of a camera: what `take` takes. */
  static async of(source, { signal } = {}) {
    const owned = !isStream(source);
    const stream = owned ? await openCamera(source, { signal }) : source;
    const [sound] = stream.getAudioTracks();
    return { video: { stream, track: videoTrack(stream), owned }, audio: sound ? { stream, track: sound, owned } : null };
  }

  /** Takes over what is given, `{stream, track, owned}` each, and lets go of what it replaces; what is not named stays. */
  take({ video = this.#video, audio = this.#audio }) {
    const before = [this.#video, this.#audio].filter(Boolean);
    this.#video?.track.removeEventListener?.('ended', this.#onEnded);
    [this.#video, this.#audio] = [video, audio];
    this.#video.track.addEventListener?.('ended', this.#onEnded);
    for (const [kind, muted] of Object.entries(this.#muted)) this.mute(kind, muted);
    showTracks(this.stream, [video, audio].filter(Boolean).map(({ track }) => track));
    const kept = new Set([video, audio].filter(Boolean).map(({ stream }) => stream));
    for (const { stream, owned } of before) if (owned && !kept.has(stream)) stopStream(stream);
  }

  /** Black instead of the picture, or silence; also for what is taken later. */
  mute(kind, muted) {
    this.#muted[kind] = muted;
    const { [kind]: track } = this.tracks;
    // A track that was given and never muted here is left as it is.
    if (track && track.enabled === muted) track.enabled = !muted;
  }

  /** Stops what the picture comes from, if the session opened it: some devices give one camera at a time only. */
  stopPicture() {
    if (this.#video?.owned) this.#video.track.stop();
  }

  /** Lets go of everything. */
  release() {
    this.#video?.track.removeEventListener?.('ended', this.#onEnded);
    for (const { stream, owned } of [this.#video, this.#audio].filter(Boolean)) if (owned) stopStream(stream);
  }
}

/** Gives a stream exactly these tracks. What is new comes before what is old goes, so that the stream, and who shows it, never runs dry. */
export function showTracks(stream, tracks) {
  const before = stream.getTracks();
  for (const track of tracks) if (!before.includes(track)) stream.addTrack(track);
  for (const track of before) if (!tracks.includes(track)) stream.removeTrack(track);
}
