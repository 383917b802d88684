/**
 * Runs in the page, with measure.js, as `window.probe`: reads every frame directly from tracks and
 * keeps the measurements until the test asks for them. A video element would show frames at the
 * screen's refresh rate and hide some.
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
   * Measures each frame of `track` from now on; `only` is 'number' if speed matters, 'box' to look
   * for a drawn box.
   */
  watch(name, track, only = 'all') {
    const reader = new MediaStreamTrackProcessor({ track, maxBufferSize: 8 }).readable.getReader();
    const records = (this.seen[name] = []);
    const next = async () => {
      for (;;) {
        const { value: frame, done } = await reader.read();
        if (done) return;
        const t = performance.now();
        const rtp = frame.metadata?.().rtpTimestamp ?? null;
        const picture = await pictureOf(frame);
        const shown = `${frame.displayWidth}x${frame.displayHeight}`;
        frame.close();
        const found = only === 'number' ? { number: numberOf(picture, this.layout) } : only === 'box' ? { box: boxOf(picture) } : measure(picture, this.layout);
        if (found.thumb) found.thumb = base64(found.thumb);
        records.push({ t, rtp, shown, width: picture.width, height: picture.height, ...found });
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

/** Returns copies of the planes of a frame. Its visible size is the picture's size. */
async function pictureOf(frame) {
  const { width, height } = frame.visibleRect;
  const data = new Uint8Array(frame.allocationSize());
  const layout = await frame.copyTo(data);
  const plane = (index, step = 1, shift = 0) => ({ data: data.subarray(layout[index].offset + shift), stride: layout[index].stride, step });
  if (frame.format === 'NV12') return { width, height, planes: [plane(0), plane(1, 2), plane(1, 2, 1)] };
  if (frame.format === 'I420' || frame.format === 'I420A') return { width, height, planes: [plane(0), plane(1), plane(2)] };
  throw new Error(`frames of the format ${frame.format} are not read here`);
}

function base64(bytes) {
  return btoa(String.fromCharCode(...bytes));
}
