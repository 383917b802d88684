/**
 * The figures panel: frame rates, latency by stage, network. Draws what it is given and keeps nothing but its elements; refuses
 * to know where the figures come from.
 */

import { element, readable } from './parameters.js';

const STAGES = {
  inbox: 'waiting',
  decode: 'codec',
  prepare: 'pixels',
  queue: 'waiting',
  analyse: 'model',
  playout: 'waiting',
  compose: 'pixels',
  encode: 'codec',
};

const TILES = {
  camera: 'Camera',
  processed: 'Processed',
  shown: 'Shown',
  residence: 'Gateway, p50',
  tail: 'Gateway, p95',
  network: 'Round trip',
  picture: 'Picture',
  codec: 'Codec',
  bitrate: 'Bit rate',
};

/** Lays the panel out with empty values, so that nothing moves when figures come. */
export class Figures {
  #tiles = {};
  #bar = document.querySelector('#stages');
  #segments = {};
  #times = {};
  #drops = document.querySelector('#drops');

  constructor() {
    for (const [name, title] of Object.entries(TILES)) {
      this.#tiles[name] = { value: element('span'), note: element('small') };
      const { value, note } = this.#tiles[name];
      document.querySelector('#figures').append(element('div', {}, element('dt', { textContent: title }), element('dd', {}, value, note)));
    }
    for (const [stage, kind] of Object.entries(STAGES)) {
      this.#segments[stage] = element('span', { className: kind });
      this.#times[stage] = element('dd');
      this.#bar.append(this.#segments[stage]);
      const name = element('dt', {}, element('i', { className: kind }), readable(stage));
      document.querySelector('#stage-list').append(element('div', {}, name, this.#times[stage]));
    }
    this.clear();
  }

  /**
   * @param {object} stats the gateway's, of the last second
   * @param {object} measures the browser's, over the same second
   * @param {number | null} shownFps frames that the page showed, if it can tell
   */
  draw(stats, measures, shownFps) {
    const { stages_ms: stages = {} } = stats;
    const residence = stats.residence_ms ?? {};
    const { received } = measures;
    this.#tile('camera', number(measures.camera.fps ?? stats.fps_in, 0), 'fps');
    this.#tile('processed', number(stats.fps_analysed, 0), 'fps');
    this.#tile('shown', number(shownFps ?? received.fps, 0), 'fps');
    this.#tile('residence', number(residence.p50, 1), 'ms');
    this.#tile('tail', number(residence.p95, 1), 'ms');
    this.#tile('network', number(measures.roundTripMs, 1), 'ms');
    this.#tile('picture', `${received.width ?? stats.width ?? '–'}×${received.height ?? stats.height ?? '–'}`, '');
    this.#tile('codec', received.codec ?? '–', '');
    this.#tile('bitrate', number(stats.bitrate_bps / 1e6, 2), stats.estimate_bps ? `/ ${number(stats.estimate_bps / 1e6, 1)} Mb/s` : 'Mb/s');
    this.#drawStages(stages);
    const drops = Object.entries(stats.dropped ?? {}).filter(([, count]) => count > 0);
    this.#drops.textContent = drops.length ? `Frames dropped in the last second: ${drops.map(([why, count]) => `${count} ${readable(why).toLowerCase()}`).join(', ')}.` : 'No frame dropped in the last second.';
  }

  /** Back to dashes, when there is no session. */
  clear() {
    const units = { camera: 'fps', processed: 'fps', shown: 'fps', residence: 'ms', tail: 'ms', network: 'ms', picture: '', codec: '', bitrate: 'Mb/s' };
    for (const [name, unit] of Object.entries(units)) this.#tile(name, '–', unit);
    this.#drawStages({});
    this.#drops.textContent = '';
  }

  #tile(name, value, note) {
    this.#tiles[name].value.textContent = value;
    this.#tiles[name].note.textContent = note;
  }

  #drawStages(stages) {
    for (const stage of Object.keys(STAGES)) {
      const time = stages[stage] ?? null;
      this.#segments[stage].style.flexGrow = Math.max(0, time ?? 0);
      this.#segments[stage].hidden = !(time > 0);
      this.#times[stage].textContent = time === null ? '–' : `${number(time, 1)} ms`;
    }
    const told = Object.keys(STAGES).filter((stage) => stages[stage] !== undefined);
    this.#bar.ariaLabel = told.length ? `Mean time of a frame in the gateway: ${told.map((stage) => `${stage} ${number(stages[stage], 1)} ms`).join(', ')}` : 'No frames yet';
  }
}

function number(value, digits) {
  return Number.isFinite(value) ? value.toFixed(digits) : '–';
}
