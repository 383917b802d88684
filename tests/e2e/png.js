/**
 * Reads a PNG file: 8 bits per channel, RGB or RGBA, not interlaced. Owns the format and refuses to
 * know the contents.
 */

import { readFileSync } from 'node:fs';
import { inflateSync } from 'node:zlib';

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const CHANNELS = { 2: 3, 6: 4 };

/**
 * Returns `{width, height, rgb}`: three bytes per pixel, row by row; an alpha channel is dropped.
 */
export function readPng(file) {
  const bytes = readFileSync(file);
  if (!bytes.subarray(0, 8).equals(SIGNATURE)) throw new Error(`${file} is not a PNG file`);
  const data = [];
  let header = null;
  for (let at = 8; at + 8 <= bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    const kind = bytes.toString('latin1', at + 4, at + 8);
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (kind === 'IHDR') header = { width: body.readUInt32BE(0), height: body.readUInt32BE(4), depth: body[8], colour: body[9], interlaced: body[12] };
    if (kind === 'IDAT') data.push(body);
    at += 12 + length;
  }
  const channels = CHANNELS[header?.colour];
  if (!channels || header.depth !== 8 || header.interlaced) throw new Error(`${file} is a PNG of a kind that is not read here`);
  return unfiltered(inflateSync(Buffer.concat(data)), header, channels);
}

/** Reverses the filter of each row (https://www.w3.org/TR/png-3/#9Filters). */
function unfiltered(raw, { width, height }, channels) {
  const stride = width * channels;
  const rgb = new Uint8Array(width * height * 3);
  let above = new Uint8Array(stride);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (stride + 1)];
    const row = new Uint8Array(raw.subarray(y * (stride + 1) + 1, (y + 1) * (stride + 1)));
    for (let x = 0; x < stride; x++) {
      const left = x >= channels ? row[x - channels] : 0;
      const corner = x >= channels ? above[x - channels] : 0;
      row[x] += [0, left, above[x], (left + above[x]) >> 1, paeth(left, above[x], corner)][filter];
    }
    for (let x = 0; x < width; x++) for (let c = 0; c < 3; c++) rgb[(y * width + x) * 3 + c] = row[x * channels + c];
    above = row;
  }
  return { width, height, rgb };
}

function paeth(left, above, corner) {
  const guess = left + above - corner;
  const [a, b, c] = [left, above, corner].map((near) => Math.abs(guess - near));
  return a <= b && a <= c ? left : b <= c ? above : corner;
}
