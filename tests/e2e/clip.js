/**
 * Makes the clips that replace a camera: a person in front of a room, with slow motion and sensor
 * noise, and with a frame number on each frame that stays readable after codecs, blur and painting.
 *
 * Owns the picture, its motion, and the ground truth of each frame: its number, the position of the
 * face, the background area. Refuses to know browsers and gateways. The same size always gives the
 * same clip, byte for byte.
 *
 * Each frame has a strip of cells at its top: black, white, and ten bits. Seven bits are the number
 * as a Gray code (a mix of two neighbouring numbers reads as one of them), three are check bits
 * that detect any single wrong cell.
 */

import { createHash } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { readPng } from './png.js';

/** Number of frames in the seamless loop. */
export const LOOP = 128;
const NUMBER_BITS = 7;
const CELLS = 12;

const PICTURE = fileURLToPath(new URL('../media/astronaut.png', import.meta.url));
/**
 * The face in pixels of the picture: the result of an independent implementation of the detector on
 * the upper three quarters of the picture at 640x480 (218.93, 97.98, 342.30, 221.34), converted to
 * the picture's own 512 columns.
 */
const FACE = [218.93, 97.98, 342.3, 221.34].map((at) => at / 1.25);
/**
 * The lower part of a space shuttle, with hard edges, far from the person, so it is background in
 * every frame. In pixels of the picture. The tank above it is excluded, because the segmentation
 * model takes it for a head in a few frames.
 */
const BACKGROUND = [362, 145, 454, 250];

/**
 * Makes the clip of this size, or returns the one that was made before. Returns `{file, width,
 * height, fps, layout, truth}`: `layout` is the information for a reader (cells as `[left, top,
 * right, bottom]` in pixels, the code words, the background), and `truth[n]` is `{face, energy,
 * thumb}` of frame n, measured by `measure`, which is an argument so that the same code measures
 * both ends.
 */
export function clip({ width, height, fps = 30, measure }) {
  const layout = layoutOf(width, height);
  const frames = paths(width, height, layout.strip);
  layout.background = common([[0, layout.strip, width, height], ...frames.map(({ place }) => boxIn(place, BACKGROUND))]).map(Math.round);
  layout.faces = frames.map(({ place }) => boxIn(place, FACE));
  const code = readFileSync(fileURLToPath(import.meta.url));
  const name = `${width}x${height}-${fps}-${createHash('sha256').update(code).digest('hex').slice(0, 12)}.y4m`;
  const folder = join(tmpdir(), 'ooblex-e2e-clips');
  const file = join(folder, name);
  mkdirSync(folder, { recursive: true });
  if (!existsSync(file)) write(file, { width, height, fps, layout, frames });
  return { file, width, height, fps, layout, truth: measure ? truths(file, layout, measure) : null };
}

/** Returns the result of `measure` for each frame of the clip. */
function truths(file, layout, measure) {
  const bytes = readFileSync(file);
  const { width, height } = layout;
  const chroma = Math.ceil(width / 2) * Math.ceil(height / 2);
  const size = width * height + 2 * chroma;
  let at = bytes.indexOf(0x0a) + 1;
  return layout.faces.map((face) => {
    at += 'FRAME\n'.length;
    const planes = [bytes.subarray(at, at + width * height), bytes.subarray(at + width * height, at + width * height + chroma), bytes.subarray(at + width * height + chroma, at + size)];
    at += size;
    const picture = { width, height, planes: planes.map((data, index) => ({ data, stride: index ? Math.ceil(width / 2) : width, step: 1 })) };
    return { face, ...measure(picture, layout) };
  });
}

function layoutOf(width, height) {
  const columns = width >= height ? CELLS : CELLS / 2;
  const rows = CELLS / columns;
  const tall = 2 * Math.round(height / (rows === 1 ? 12 : 20));
  const cells = Array.from({ length: CELLS }, (_, index) => {
    const [column, row] = [index % columns, Math.floor(index / columns)];
    return [Math.round((column * width) / columns), row * tall, Math.round(((column + 1) * width) / columns), (row + 1) * tall];
  });
  const words = Array.from({ length: LOOP }, (_, number) => wordOf(number));
  return { width, height, strip: rows * tall, cells, words, loop: LOOP };
}

/**
 * Returns the ten bits of a number as a string: its Gray code, then the remainder of that modulo
 * x³+x+1.
 */
function wordOf(number) {
  const gray = number ^ (number >> 1);
  let rest = gray << 3;
  for (let bit = NUMBER_BITS + 2; bit >= 3; bit--) if (rest & (1 << bit)) rest ^= 0b1011 << (bit - 3);
  return gray.toString(2).padStart(NUMBER_BITS, '0') + rest.toString(2).padStart(3, '0');
}

/**
 * Position of the picture in each frame: the point `(x, y)` of the picture is shown at `[(x - left)
 * * scale, strip + (y - top) * scale]`.
 */
function paths(width, height, strip) {
  const { width: columns, height: rows } = source();
  const shape = width / (height - strip);
  const widest = Math.min(columns, rows * shape);
  // Leaves room at the top and on both sides for the motion; a portrait frame shows the right part,
  // where the background has edges.
  const home = Math.max(0, Math.min(columns - widest, 95));
  return Array.from({ length: LOOP }, (_, number) => {
    const turn = (2 * Math.PI * number) / LOOP;
    const view = widest * (0.95 + 0.02 * Math.cos(turn));
    const left = home + (widest - view) * (0.5 + 0.45 * Math.sin(turn));
    const top = 4 + 4 * Math.sin(2 * turn);
    return { place: { left, top, scale: width / view, strip } };
  });
}

function boxIn({ left, top, scale, strip }, [x0, y0, x1, y1]) {
  return [(x0 - left) * scale, strip + (y0 - top) * scale, (x1 - left) * scale, strip + (y1 - top) * scale];
}

/** Returns the intersection of these boxes. */
function common(boxes) {
  const side = (index, pick) => pick(...boxes.map((box) => box[index]));
  return [side(0, Math.max), side(1, Math.max), side(2, Math.min), side(3, Math.min)];
}

function write(file, { width, height, fps, layout, frames }) {
  const { planes } = source();
  const noise = noiseTable();
  const partial = `${file}.${process.pid}`;
  const out = openSync(partial, 'w');
  writeSync(out, `YUV4MPEG2 W${width} H${height} F${fps}:1 Ip A1:1 C420jpeg\n`);
  frames.forEach(({ place }, number) => {
    const shown = planes.map((plane, index) => drawn(plane, place, index ? 2 : 1, width, height, noise(index ? 1 : 2)));
    drawNumber(shown, layout, number);
    writeSync(out, 'FRAME\n');
    for (const plane of shown) writeSync(out, plane);
  });
  closeSync(out);
  renameSync(partial, file);
}

/** Returns one plane of a frame, downscaled by `shrink` in both directions. */
function drawn(plane, { left, top, scale, strip }, shrink, width, height, noise) {
  const { width: columns, height: rows } = source();
  const [wide, high] = [Math.ceil(width / shrink), Math.ceil(height / shrink)];
  const data = new Uint8Array(wide * high);
  const half = (shrink - 1) / 2;
  for (let y = Math.floor(strip / shrink); y < high; y++) {
    const from = Math.min(rows - 1.001, Math.max(0, (y * shrink + half - strip) / scale + top));
    const [y0, fy] = [Math.floor(from), from % 1];
    for (let x = 0; x < wide; x++) {
      const at = Math.min(columns - 1.001, Math.max(0, (x * shrink + half) / scale + left));
      const x0 = Math.floor(at);
      const fx = at - x0;
      const i = y0 * columns + x0;
      const upper = plane[i] + (plane[i + 1] - plane[i]) * fx;
      const lower = plane[i + columns] + (plane[i + columns + 1] - plane[i + columns]) * fx;
      const value = upper + (lower - upper) * fy + noise();
      data[y * wide + x] = value < 16 ? 16 : value > 235 ? 235 : value + 0.5;
    }
  }
  return data;
}

function drawNumber([luma, ...chroma], { width, height, strip, cells, words }, number) {
  const wide = Math.ceil(width / 2);
  for (const plane of chroma) plane.fill(128, 0, wide * Math.ceil(Math.min(strip, height) / 2));
  [...`01${words[number]}`].forEach((bit, index) => {
    const [left, top, right, bottom] = cells[index];
    for (let y = top; y < bottom; y++) luma.fill(bit === '1' ? 235 : 16, y * width + left, y * width + right);
  });
}

/** Returns the picture as three planes of its own size, BT.601 limited range. */
function source() {
  return (source.read ??= (() => {
    const { width, height, rgb } = readPng(PICTURE);
    const planes = [0, 1, 2].map(() => new Float32Array(width * height));
    for (let i = 0; i < width * height; i++) {
      const [r, g, b] = [rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]];
      planes[0][i] = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256;
      planes[1][i] = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256;
      planes[2][i] = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256;
    }
    return { width, height, planes };
  })());
}

/**
 * Sensor noise that is the same on every machine: `noiseTable()(sigma)` returns a function that
 * returns the next value.
 */
function noiseTable() {
  let state = 0x9e3779b9;
  const random = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  const bell = Float32Array.from({ length: 1 << 16 }, () => (Array.from({ length: 12 }, random).reduce((sum, r) => sum + r / 2 ** 32, 0) - 6));
  return (sigma) => () => sigma * bell[random() & 0xffff];
}
