/**
 * The picture on the page: with the effect, the original beside it, and the glow around them. Owns
 * the two videos and the divider; refuses to know where the streams come from.
 */

const GLOW_EVERY_MS = 120;

export class Stage {
  #stage = document.querySelector('#stage');
  #screen = document.querySelector('#screen');
  #divider = document.querySelector('#divider');
  #glow = document.querySelector('#glow').getContext('2d');
  #shown = { frames: 0, since: performance.now(), supported: false };
  /** The video track shown as the original. */
  #track = null;
  output = document.querySelector('#output');
  source = document.querySelector('#source');

  /** `first` is called with each shown picture. */
  constructor(first) {
    this.#divider.addEventListener('input', () => this.#split());
    this.source.addEventListener('resize', () => this.#fit(this.source));
    this.output.addEventListener('resize', () => this.#fit(this.output));
    this.#split();
    this.#count(first);
    const still = matchMedia('(prefers-reduced-motion: reduce)');
    setInterval(() => still.matches || document.hidden || this.#light(), GLOW_EVERY_MS);
    this.compare(true);
  }

  /** Shows these streams; `null` clears one. */
  show({ input, output }) {
    const track = input?.getVideoTracks()[0] ?? null;
    // The same picture again would interrupt it.
    if (input !== undefined && (input !== this.source.srcObject || track !== this.#track)) [this.source.srcObject, this.#track] = [input, track];
    if (output !== undefined) this.output.srcObject = output;
    if (output === null) this.#stage.classList.remove('lit');
    const { width, height } = track?.getSettings() ?? {};
    if (width && height) this.#shape(width, height);
  }

  /** Shows or hides the original picture. */
  compare(on) {
    this.#screen.classList.toggle('comparing', on);
  }

  /** Flashes like a camera. */
  flash() {
    this.#screen.classList.remove('flash');
    void this.#screen.offsetWidth;
    this.#screen.classList.add('flash');
  }

  /**
   * Returns the frame rate shown since the last call, or null if this browser does not count
   * frames.
   */
  shownFps() {
    const { frames, since, supported } = this.#shown;
    const now = performance.now();
    Object.assign(this.#shown, { frames: 0, since: now });
    return supported ? (frames * 1000) / (now - since) : null;
  }

  get hasPicture() {
    return this.output.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA && Boolean(this.output.srcObject);
  }

  #split() {
    this.#screen.style.setProperty('--split', `${this.#divider.value}%`);
    this.#divider.setAttribute('aria-valuetext', `${this.#divider.value} % before, ${100 - this.#divider.value} % with the effect`);
  }

  #fit(video) {
    if (video.videoWidth && video.videoHeight) this.#shape(video.videoWidth, video.videoHeight);
  }

  #shape(width, height) {
    this.#screen.style.setProperty('--shape', width / height);
  }

  #light() {
    if (!this.hasPicture) return;
    this.#glow.drawImage(this.output, 0, 0, 24, 14);
    this.#stage.classList.add('lit');
  }

  #count(first) {
    this.#shown.supported = 'requestVideoFrameCallback' in this.output;
    if (!this.#shown.supported) return this.output.addEventListener('playing', first);
    let last = 0;
    const count = (_, { presentedFrames }) => {
      this.#shown.frames += Math.max(0, presentedFrames - last);
      last = presentedFrames;
      first();
      this.output.requestVideoFrameCallback(count);
    };
    this.output.requestVideoFrameCallback(count);
  }
}
