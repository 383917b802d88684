/**
 * Plots of the last 90 seconds on a canvas: lines, or stacked areas. Owns the history and the
 * pixels; refuses to know what the values mean. The values are also available as text for screen
 * readers.
 */

import { element } from './parameters.js';

const SECONDS = 90;

export class Plot {
  #canvas;
  #label;
  #series;
  #stacked;
  #floor;
  #values = {};
  #past = [];

  /**
   * @param {string} name of the elements `plot-NAME` and `legend-NAME`
   * @param {string} label describes the plot, for screen readers
   * @param {Record<string, string>} series title by name; the name is also a colour (`.k-NAME`)
   * @param {{stacked?: boolean, floor: number}} options `floor` is the minimum of the axis' upper
   *   end
   */
  constructor(name, label, series, { stacked = false, floor }) {
    this.#canvas = document.querySelector(`#plot-${name}`);
    [this.#label, this.#series, this.#stacked, this.#floor] = [label, Object.keys(series), stacked, floor];
    const legend = document.querySelector(`#legend-${name}`);
    for (const [key, title] of Object.entries(series)) {
      this.#values[key] = element('b', { textContent: '–' });
      legend.append(element('li', {}, element('i', { className: `k-${key}` }), title, this.#values[key]));
    }
    new ResizeObserver(() => this.#draw()).observe(this.#canvas);
    addEventListener('themechange', () => this.#draw());
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#draw());
  }

  /** Adds the values of the next second by name; null for a missing value. */
  add(figures) {
    this.#past = [...this.#past, figures].slice(-SECONDS);
    const words = this.#series.map((name) => `${this.#values[name].parentElement.childNodes[1].textContent} ${text(figures[name])}`);
    for (const name of this.#series) this.#values[name].textContent = text(figures[name]);
    this.#canvas.ariaLabel = `${this.#label}: ${words.join(', ')}`;
    this.#draw();
  }

  clear() {
    this.#past = [];
    for (const value of Object.values(this.#values)) value.textContent = '–';
    this.#canvas.ariaLabel = 'No frames yet';
    this.#draw();
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    if (!width || !height) return;
    const scale = devicePixelRatio || 1;
    Object.assign(this.#canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
    const to = this.#canvas.getContext('2d');
    to.scale(scale, scale);
    const style = getComputedStyle(this.#canvas);
    const colours = Object.fromEntries(this.#series.map((name) => [name, getComputedStyle(this.#values[name].parentElement.firstChild).backgroundColor]));
    const tops = this.#past.map((figures) => this.#series.reduce((sum, name) => (this.#stacked ? sum + (figures[name] ?? 0) : Math.max(sum, figures[name] ?? 0)), 0));
    const most = roundedUp(Math.max(this.#floor, ...tops));
    const right = width - 40;
    const x = (index) => right - ((this.#past.length - 1 - index) / (SECONDS - 1)) * right;
    const y = (value) => height - 4 - (value / most) * (height - 14);
    this.#grid(to, { right, y, most, colour: style.color, font: style.fontFamily });
    if (this.#stacked) this.#areas(to, x, y, colours);
    else this.#lines(to, x, y, colours);
  }

  #grid(to, { right, y, most, colour, font }) {
    to.font = `11px ${font}`;
    to.textBaseline = 'middle';
    for (const value of [0, most / 2, most]) {
      to.globalAlpha = 0.14;
      to.fillStyle = colour;
      to.fillRect(0, Math.round(y(value)), right, 1);
      to.globalAlpha = 0.6;
      to.fillText(`${value}`, right + 8, Math.min(y(value), y(0) - 4));
    }
    to.globalAlpha = 1;
  }

  #lines(to, x, y, colours) {
    to.lineWidth = 2;
    to.lineJoin = 'round';
    for (const name of this.#series) {
      to.strokeStyle = colours[name];
      to.beginPath();
      this.#past.forEach((figures, index) => Number.isFinite(figures[name]) && to.lineTo(x(index), y(figures[name])));
      to.stroke();
    }
  }

  #areas(to, x, y, colours) {
    const below = this.#past.map(() => 0);
    for (const name of this.#series) {
      const above = this.#past.map((figures, index) => below[index] + Math.max(0, figures[name] ?? 0));
      to.fillStyle = colours[name];
      to.beginPath();
      above.forEach((value, index) => to.lineTo(x(index), y(value)));
      for (let index = below.length - 1; index >= 0; index--) to.lineTo(x(index), y(below[index]));
      to.fill();
      above.forEach((value, index) => (below[index] = value));
    }
  }
}

/** Rounds up to the next of 1, 2, 3, 4, 6, 8 or 10 times a power of ten. */
function roundedUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}

function text(value) {
  if (!Number.isFinite(value)) return '–';
  return value < 10 ? value.toFixed(1) : value.toFixed(0);
}
