/**
 * Runs in the page, with measure.js, as `window.probe`: reads every frame directly from tracks and
 * keeps the measurements until the test asks for them. A video element would show frames at the
 * screen's refresh rate and hide some; it is used only where a browser gives no access to tracks
 * (Firefox), or where a test asks for what it shows.
 *
 * Owns the reading of frames and the clock of their arrival. Refuses to know what is expected of
 * them.
 */

window.probe = {
  layout: null,
  seen: {},
  kept: {},
  notes: [],

  /**
   * Measures each frame of a track or a video element from now on; `only` is 'number' if speed
   * matters, 'box' to look for a drawn box.
   */
  watch(name, source, only = 'all') {
    const reader = readerOf(source);
    const records = (this.seen[name] = []);
    const next = async () => {
      for (;;) {
        const { value: frame, done, rtp: told, displayed } = await reader.read();
        if (done) return;
        const t = performance.now();
        const rtp = told ?? frame.metadata?.().rtpTimestamp ?? null;
        const picture = await pictureOf(frame);
        const shown = `${frame.displayWidth}x${frame.displayHeight}`;
        frame.close();
        const found = only === 'number' ? { number: numberOf(picture, this.layout) } : only === 'box' ? { box: boxOf(picture) } : measure(picture, this.layout);
        if (found.thumb) found.thumb = base64(found.thumb);
        records.push({ t, rtp, displayed, shown, width: picture.width, height: picture.height, ...found });
      }
    };
    next().catch((error) => this.notes.push(`${name}: ${error}`));
    return () => reader.cancel();
  },

  /** Keeps a live object under a name, for later calls. */
  keep(name, object) {
    this.kept[name] = object;
    return object;
  },
};

function readerOf(source) {
  if (source instanceof HTMLVideoElement) return shown(source);
  if (!window.MediaStreamTrackProcessor) return shown(playing(source));
  return new MediaStreamTrackProcessor({ track: source, maxBufferSize: 8 }).readable.getReader();
}

/** Returns an element that plays this track. */
function playing(track) {
  const video = Object.assign(document.createElement('video'), { muted: true, autoplay: true, srcObject: new MediaStream([track]) });
  document.body.append(video);
  return video;
}

/** Reads the frames that an element shows, as a reader of a stream does. */
function shown(video) {
  let stopped = false;
  return {
    read: () =>
      new Promise((resolve) =>
        video.requestVideoFrameCallback((_, { rtpTimestamp, expectedDisplayTime }) => resolve(stopped ? { done: true } : { value: new VideoFrame(video), rtp: rtpTimestamp, displayed: expectedDisplayTime })),
      ),
    cancel: () => void (stopped = true),
  };
}

/** Returns copies of the planes of a frame. Its visible size is the picture's size. */
async function pictureOf(frame) {
  const { width, height } = frame.visibleRect;
  const data = new Uint8Array(frame.allocationSize());
  const layout = await frame.copyTo(data);
  const plane = (index, step = 1, shift = 0) => ({ data: data.subarray(layout[index].offset + shift), stride: layout[index].stride, step });
  if (frame.format === 'NV12') return { width, height, planes: [plane(0), plane(1, 2), plane(1, 2, 1)] };
  if (frame.format === 'I420' || frame.format === 'I420A') return { width, height, planes: [plane(0), plane(1), plane(2)] };
  if (/^(RGB|BGR)[AX]$/.test(frame.format)) return converted(data, layout[0], { width, height, red: frame.format.indexOf('R'), blue: frame.format.indexOf('B') });
  throw new Error(`frames of the format ${frame.format} are not read here`);
}

/** Returns the planes of a picture in RGB: BT.601 with limited range. */
function converted(data, { offset, stride }, { width, height, red, blue }) {
  const [wide, high] = [Math.ceil(width / 2), Math.ceil(height / 2)];
  const [luma, ...chroma] = [new Uint8Array(width * height), new Uint8Array(wide * high), new Uint8Array(wide * high)];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = offset + y * stride + 4 * x;
      const [r, g, b] = [data[at + red], data[at + 1], data[at + blue]];
      luma[y * width + x] = 16.5 + (65.738 * r + 129.057 * g + 25.064 * b) / 256;
      if (x % 2 || y % 2) continue;
      const half = (y >> 1) * wide + (x >> 1);
      chroma[0][half] = 128.5 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256;
      chroma[1][half] = 128.5 + (112.439 * r - 94.154 * g - 18.285 * b) / 256;
    }
  }
  return { width, height, planes: [{ data: luma, stride: width, step: 1 }, ...chroma.map((plane) => ({ data: plane, stride: wide, step: 1 }))] };
}

function base64(bytes) {
  return btoa(String.fromCharCode(...bytes));
}
