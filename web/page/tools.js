/**
 * The buttons below the picture that need no gateway: save a picture, record a video, picture in
 * picture, full screen. Owns the recorder and its files; refuses to know sessions.
 */

const FORMATS = ['video/mp4;codecs=avc1.42E01F', 'video/webm;codecs=vp9', 'video/webm;codecs=vp8', 'video/webm', 'video/mp4'];

export class Tools {
  #stage;
  #tell;
  #recorder = null;
  #clock = null;
  #at = Object.fromEntries(['snapshot', 'record', 'pip', 'full', 'record-time', 'stage'].map((id) => [id, document.getElementById(id)]));

  /** `tell` shows a text to the visitor. */
  constructor(stage, tell) {
    [this.#stage, this.#tell] = [stage, tell];
    const { output } = stage;
    this.#at.snapshot.addEventListener('click', () => void this.#snapshot());
    this.#at.record.addEventListener('click', () => (this.#recorder ? this.stopRecording() : this.#startRecording()));
    this.#at.record.hidden = !window.MediaRecorder;
    this.#at.pip.hidden = !document.pictureInPictureEnabled;
    this.#at.pip.addEventListener('click', () => void this.#pictureInPicture());
    output.addEventListener('enterpictureinpicture', () => (this.#at.pip.ariaPressed = 'true'));
    output.addEventListener('leavepictureinpicture', () => (this.#at.pip.ariaPressed = 'false'));
    this.#at.full.hidden = !(document.fullscreenEnabled || output.webkitEnterFullscreen);
    this.#at.full.addEventListener('click', () => void this.#fullScreen());
    document.addEventListener('fullscreenchange', () => (this.#at.full.ariaPressed = String(Boolean(document.fullscreenElement))));
    this.enable(false);
  }

  /** Enables the buttons if there is a picture. */
  enable(on) {
    for (const id of ['snapshot', 'record', 'pip', 'full']) this.#at[id].disabled = !on;
    if (!on) this.stopRecording();
  }

  /** Ends the recording and saves it. */
  stopRecording() {
    if (this.#recorder?.state === 'recording') this.#recorder.stop();
  }

  async #snapshot() {
    const { output } = this.#stage;
    const canvas = Object.assign(document.createElement('canvas'), { width: output.videoWidth, height: output.videoHeight });
    canvas.getContext('2d').drawImage(output, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
    this.#stage.flash();
    save(blob, 'png');
    this.#tell('The picture was saved.');
  }

  #startRecording() {
    const stream = this.#stage.output.srcObject;
    // Firefox waits without end for the sound of a stream that has none.
    const sound = stream.getAudioTracks().length ? ',opus' : '';
    const format = FORMATS.map((type) => (type.includes('codecs') ? type + sound : type)).find((type) => MediaRecorder.isTypeSupported(type));
    const parts = [];
    let recorder;
    try {
      recorder = new MediaRecorder(stream, { mimeType: format, videoBitsPerSecond: 6_000_000 });
      recorder.addEventListener('dataavailable', ({ data }) => data.size && parts.push(data));
      recorder.addEventListener('stop', () => this.#saved(parts, recorder.mimeType));
      recorder.addEventListener('error', () => this.stopRecording());
      recorder.start(1000);
    } catch (error) {
      this.#tell(`This browser cannot record the picture: ${error.message}`);
      return;
    }
    this.#recorder = recorder;
    this.#at.record.ariaPressed = 'true';
    const began = performance.now();
    const tick = () => (this.#at['record-time'].textContent = clock(performance.now() - began));
    tick();
    this.#clock = setInterval(tick, 500);
  }

  #saved(parts, type) {
    clearInterval(this.#clock);
    this.#recorder = null;
    this.#at.record.ariaPressed = 'false';
    this.#at['record-time'].textContent = '';
    if (!parts.length) return;
    save(new Blob(parts, { type }), type.includes('mp4') ? 'mp4' : 'webm');
    this.#tell('The video was saved.');
  }

  async #pictureInPicture() {
    try {
      if (document.pictureInPictureElement) await document.exitPictureInPicture();
      else await this.#stage.output.requestPictureInPicture();
    } catch (error) {
      this.#tell(`This browser does not allow picture in picture: ${error.message}`);
    }
  }

  async #fullScreen() {
    try {
      if (document.fullscreenElement) await document.exitFullscreen();
      else if (document.fullscreenEnabled) await this.#at.stage.requestFullscreen();
      else this.#stage.output.webkitEnterFullscreen();
    } catch (error) {
      this.#tell(`This browser does not allow full screen: ${error.message}`);
    }
  }
}

function save(blob, ending) {
  const url = URL.createObjectURL(blob);
  const stamp = new Date().toISOString().slice(0, 19).replaceAll(/[T:]/g, '-');
  Object.assign(document.createElement('a'), { href: url, download: `ooblex-${stamp}.${ending}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function clock(ms) {
  const seconds = Math.floor(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}
