/**
 * Measurements of one picture of a clip: its number, the sharpness of its background, whether the
 * face is framed, and a thumbnail.
 *
 * Owns the reading of pixels. Refuses to know their origin: the same code runs in the browser on
 * frames that came back and in node on the clip itself, so that both are measured in the same way.
 * Therefore it has no imports. A picture is `{width, height, planes: [{data, stride, step}]}`, Y, U
 * and V; its size may differ from that of the layout.
 */

export const THUMB = [32, 24];

/**
 * Returns `{number, energy, outline, thumb}` of a picture. `number` is null if it cannot be read.
 */
export function measure(picture, layout) {
  const number = numberOf(picture, layout);
  const face = layout.faces[number ?? 0];
  return { number, energy: energyOf(picture, layout), outline: outlineOf(picture, layout, face), thumb: thumbOf(picture) };
}

/** Returns the number on a picture, which may be inverted, or null if the cells are ambiguous. */
export function numberOf({ width, height, planes: [luma] }, layout) {
  const [sx, sy] = [width / layout.width, height / layout.height];
  const levels = layout.cells.map(([left, top, right, bottom]) => {
    const [wide, tall] = [right - left, bottom - top];
    return mean(luma, [(left + 0.3 * wide) * sx, (top + 0.2 * tall) * sy, (left + 0.7 * wide) * sx, (top + 0.6 * tall) * sy], 2);
  });
  const [black, white, ...cells] = levels;
  if (Math.abs(white - black) < 25) return null;
  const shares = cells.map((level) => (level - black) / (white - black));
  if (shares.some((share) => Math.abs(share - 0.5) < 0.08)) return null;
  const number = layout.words.indexOf(shares.map((share) => (share > 0.5 ? 1 : 0)).join(''));
  return number < 0 ? null : number;
}

/**
 * Returns the energy of the edges in the background: the mean square of luma differences over about
 * two pixels of a 640 px wide picture.
 */
export function energyOf({ width, height, planes: [luma] }, layout) {
  const [sx, sy] = [width / layout.width, height / layout.height];
  const [left, top, right, bottom] = layout.background.map((at, index) => Math.round(at * (index % 2 ? sy : sx)));
  const lag = Math.max(1, Math.round(width / Math.max(320, layout.width / 2)));
  let sum = 0;
  for (let y = top; y < bottom - lag; y++) {
    for (let x = left; x < right - lag; x++) {
      const here = luma.data[y * luma.stride + x];
      sum += (luma.data[y * luma.stride + x + lag] - here) ** 2 + (luma.data[(y + lag) * luma.stride + x] - here) ** 2;
    }
  }
  return sum / ((bottom - top - lag) * (right - left - lag));
}

/**
 * Returns the share of the outline around the face, at 0.75 to 1.3 times its box, on which the
 * green of a drawn box is found. 0..=1.
 */
export function outlineOf({ width, height, planes: [, u, v] }, layout, [left, top, right, bottom]) {
  const [sx, sy] = [width / layout.width / 2, height / layout.height / 2];
  const [cx, cy, rx, ry] = [(left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2];
  const rays = 64;
  let met = 0;
  for (let ray = 0; ray < rays; ray++) {
    const angle = (2 * Math.PI * ray) / rays;
    const [dx, dy] = [Math.cos(angle), Math.sin(angle)];
    const edge = 1 / Math.max(Math.abs(dx), Math.abs(dy));
    for (let reach = 0.75; reach <= 1.3; reach += 0.01) {
      const [x, y] = [Math.round((cx + dx * edge * reach * rx) * sx), Math.round((cy + dy * edge * reach * ry) * sy)];
      const at = y * u.stride + x * u.step;
      if (u.data[at] < 116 && v.data[at] < 100) {
        met++;
        break;
      }
    }
  }
  return met / rays;
}

/**
 * Returns `[left, top, right, bottom]` of the single box that is drawn in green, in pixels of the
 * picture; null if there is none. Its sides are the columns and rows of chroma that are mostly
 * green, and the edges are interpolated by the intensity of the outermost green line.
 */
export function boxOf({ width, height, planes: [, u, v] }) {
  const [wide, high] = [Math.ceil(width / 2), Math.ceil(height / 2)];
  const green = (x, y) => Math.min(1, Math.max(0, (128 - u.data[y * u.stride + x * u.step]) / 42)) * Math.min(1, Math.max(0, (128 - v.data[y * v.stride + x * v.step]) / 81));
  const sums = (count, across, at) => Array.from({ length: count }, (_, i) => Array.from({ length: across }, (_, j) => at(i, j)).reduce((sum, value) => sum + value * value, 0));
  const [columns, rows] = [sums(wide, high, green), sums(high, wide, (y, x) => green(x, y))];
  const edges = (lines) => {
    const most = Math.max(...lines);
    if (most < 10) return null;
    const first = lines.findIndex((line) => line > most / 2);
    const last = lines.findLastIndex((line) => line > most / 2);
    // The part that a line lacks of full intensity is outside the box; the intensity of the next
    // line is the part inside the box.
    const share = (index) => Math.min(1, (lines[index] ?? 0) / most);
    return [2 * (first + 1 - share(first) - share(first - 1)), 2 * (last + share(last) + share(last + 1))];
  };
  const [across, down] = [edges(columns), edges(rows)];
  return across && down ? [across[0], down[0], across[1], down[1]] : null;
}

/** Returns the means of 32x24 blocks of Y, then U, then V. */
export function thumbOf({ width, height, planes }) {
  const [columns, rows] = THUMB;
  const thumb = new Uint8Array(3 * columns * rows);
  planes.forEach((plane, index) => {
    const [wide, high] = index ? [Math.ceil(width / 2), Math.ceil(height / 2)] : [width, height];
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const box = [(column * wide) / columns, (row * high) / rows, ((column + 1) * wide) / columns, ((row + 1) * high) / rows];
        thumb[(index * rows + row) * columns + column] = mean(plane, box, index ? 1 : 2);
      }
    }
  });
  return thumb;
}

function mean({ data, stride, step }, [left, top, right, bottom], every) {
  let [sum, count] = [0, 0];
  for (let y = Math.floor(top); y < bottom; y += every) {
    for (let x = Math.floor(left); x < right; x += every) {
      sum += data[y * stride + x * step];
      count++;
    }
  }
  return Math.round(sum / count);
}
