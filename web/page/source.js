/**
 * The source of the video: a camera at a resolution, the screen, or a file. Owns the pickers and
 * their choices; passes on streams and choices and refuses to know sessions.
 */

import { openCamera, openFile, openScreen, stopStream } from '../sdk/ooblex.js';

const SIZES = { '360p': [640, 360], '480p': [640, 480], '720p': [1280, 720], '1080p': [1920, 1080] };
const FPS = 30;

export class Source {
  #at = Object.fromEntries(['cameras', 'sizes', 'use-camera', 'use-screen', 'use-file', 'file'].map((id) => [id, document.getElementById(id)]));
  #chosen;
  #kind = 'camera';
  #stream = null;
  askedFps = FPS;

  /**
   * `chosen` is called when the visitor has chosen another source, with the kind (`camera`,
   * `screen`, `file`) and a function that opens it.
   */
  constructor(chosen) {
    this.#chosen = chosen;
    const { sizes, cameras, file } = this.#at;
    sizes.append(...Object.entries(SIZES).map(([name, [width, height]]) => new Option(`${name} (${width}×${height})`, name)));
    const asked = new URLSearchParams(location.search).get('size');
    sizes.value = asked in SIZES ? asked : '480p';
    cameras.append(new Option('Default camera', ''));
    for (const picker of [sizes, cameras]) picker.addEventListener('change', () => this.#pick('camera'));
    this.#at['use-camera'].addEventListener('click', () => this.#pick('camera'));
    this.#at['use-screen'].addEventListener('click', () => this.#pick('screen'));
    this.#at['use-screen'].hidden = !navigator.mediaDevices?.getDisplayMedia;
    this.#at['use-file'].addEventListener('click', () => file.click());
    file.addEventListener('change', () => file.files.length && this.#pick('file', file.files[0]));
    navigator.mediaDevices?.addEventListener?.('devicechange', () => void this.#listCameras());
  }

  get kind() {
    return this.#kind;
  }

  get stream() {
    return this.#stream;
  }

  /**
   * Opens the chosen source; this object owns the stream until another one is opened or `close` is
   * called.
   */
  async open({ signal } = {}) {
    return this.#take(this.#kind, await openCamera(this.#constraints(), { signal }));
  }

  /** Stops the open source. */
  close() {
    if (this.#stream) stopStream(this.#stream);
    this.#stream = null;
    this.#mark('camera');
  }

  #pick(kind, file) {
    const open = {
      camera: () => this.#camera(),
      screen: () => openScreen(),
      file: () => openFile(file),
    }[kind];
    this.#at.file.value = '';
    void this.#chosen(kind, async () => this.#take(kind, await open()));
  }

  /** Phones allow only one open camera at a time, so the current one is stopped if necessary. */
  async #camera() {
    try {
      return await openCamera(this.#constraints());
    } catch (error) {
      if (error.code !== 'camera-busy' || this.#kind !== 'camera') throw error;
      this.#stream?.getVideoTracks().forEach((track) => track.stop());
      return openCamera(this.#constraints());
    }
  }

  #constraints() {
    const [width, height] = SIZES[this.#at.sizes.value];
    const camera = this.#at.cameras.value;
    return { video: { width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: FPS }, ...(camera && { deviceId: { exact: camera } }) }, audio: false };
  }

  /**
   * Returns the new stream, and a function that stops the earlier one when the new one is in use.
   */
  #take(kind, stream) {
    const before = this.#stream;
    this.#stream = stream;
    this.#mark(kind);
    this.askedFps = stream.getVideoTracks()[0].getSettings().frameRate ?? FPS;
    if (kind === 'camera') void this.#listCameras();
    return { stream, release: () => before && stopStream(before) };
  }

  #mark(kind) {
    this.#kind = kind;
    for (const name of ['camera', 'screen', 'file']) this.#at[`use-${name}`].ariaPressed = String(name === kind);
  }

  /** Browsers give the names of cameras only after one was allowed. */
  async #listCameras() {
    const devices = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind, deviceId }) => kind === 'videoinput' && deviceId);
    const { cameras } = this.#at;
    const current = this.#kind === 'camera' ? this.#stream?.getVideoTracks()[0]?.getSettings().deviceId : cameras.value;
    if (!devices.length) return;
    cameras.replaceChildren(...devices.map(({ label, deviceId }, index) => new Option(label || `Camera ${index + 1}`, deviceId)));
    if (devices.some(({ deviceId }) => deviceId === current)) cameras.value = current;
  }
}
