/**
 * Stream health: the diagnosis, the plots and all statistics. Draws the given values and keeps only
 * its elements; refuses to know where the values come from.
 */

import { diagnose, latencyParts } from './diagnosis.js';
import { element, readable } from './parameters.js';
import { Plot } from './plots.js';

const TILES = {
  camera: ['Camera', 'fps'],
  sent: ['Sent', 'fps'],
  processed: ['Analysed', 'fps'],
  shown: ['Shown', 'fps'],
  residence: ['Gateway latency, p50', 'ms'],
  tail: ['Gateway latency, p95', 'ms'],
  network: ['Round trip', 'ms'],
  inbox: ['Inbox', 'ms'],
  decode: ['Decode', 'ms'],
  prepare: ['Prepare', 'ms'],
  queue: ['Queue', 'ms'],
  analyse: ['Model', 'ms'],
  turn: ['CPU wait', 'ms'],
  playout: ['Playout', 'ms'],
  compose: ['Compose', 'ms'],
  encode: ['Encode', 'ms'],
  cores: ['CPU cores', ''],
  picture: ['Picture', ''],
  codec: ['Codec', ''],
  bitrate: ['Bitrate', 'Mb/s'],
};
const STAGES = ['inbox', 'decode', 'prepare', 'queue', 'analyse', 'turn', 'playout', 'compose', 'encode'];
/**
 * A diagnosis must last for this many seconds before it replaces another one, so that one slow
 * second is not reported.
 */
const STEADY = 3;

/** Lays out the panel with empty values, so that nothing moves when values arrive. */
export class Figures {
  #tiles = {};
  #drops = document.querySelector('#drops');
  #verdict = document.querySelector('#verdict');
  #title = document.querySelector('#verdict-title');
  #text = document.querySelector('#verdict-text');
  #fps = new Plot('fps', 'Frames per second', { camera: 'Camera', analysed: 'Analysed', shown: 'Shown' }, { floor: 30 });
  #latency = new Plot('latency', 'Latency in milliseconds', { network: 'Network', codec: 'Codec', pixels: 'Painting', waiting: 'Waiting', model: 'Model' }, { stacked: true, floor: 60 });
  #candidate = { part: 'none', seconds: 0 };

  constructor() {
    for (const [name, [title]] of Object.entries(TILES)) {
      this.#tiles[name] = { value: element('span'), note: element('small') };
      const { value, note } = this.#tiles[name];
      document.querySelector('#figures').append(element('div', {}, element('dt', { textContent: title }), element('dd', {}, value, note)));
    }
    this.clear();
  }

  /**
   * @param {object} stats the gateway's statistics of the last second
   * @param {object} measures the browser's statistics over the same second
   * @param {number | null} shownFps frame rate shown on the page, or null if it is unknown
   * @param {object} source see `diagnose`
   * @returns {{fps: number | null, behindMs: number}} the shown frame rate and the latency
   */
  draw(stats, measures, shownFps, source) {
    const { stages_ms: stages = {} } = stats;
    const residence = stats.residence_ms ?? {};
    const { received } = measures;
    const fps = { camera: measures.camera.fps ?? stats.fps_in, analysed: stages.analyse === undefined ? null : stats.fps_analysed, shown: shownFps ?? received.fps };
    const parts = latencyParts(stats, measures);
    this.#fps.add(fps);
    this.#latency.add(parts);
    this.#tile('camera', number(fps.camera, 0));
    this.#tile('sent', number(measures.sent.fps, 0));
    this.#tile('processed', number(fps.analysed, 0));
    this.#tile('shown', number(fps.shown, 0));
    this.#tile('residence', number(residence.p50, 1));
    this.#tile('tail', number(residence.p95, 1));
    this.#tile('network', number(measures.roundTripMs, 1));
    for (const stage of STAGES) this.#tile(stage, number(stages[stage], 1));
    this.#tile('cores', number(stats.cores, 2), stats.cores_allowed ? `/ ${number(stats.cores_allowed, 1)}` : '');
    this.#tile('picture', `${received.width ?? stats.width ?? '–'}×${received.height ?? stats.height ?? '–'}`);
    this.#tile('codec', received.codec ?? '–');
    this.#tile('bitrate', number(stats.bitrate_bps / 1e6, 2), stats.estimate_bps ? `/ ${number(stats.estimate_bps / 1e6, 1)} Mb/s` : 'Mb/s');
    const drops = Object.entries(stats.dropped ?? {}).filter(([, count]) => count > 0);
    this.#drops.textContent = drops.length ? `Frames dropped in the last second: ${drops.map(([why, count]) => `${count} ${readable(why).toLowerCase()}`).join(', ')}.` : 'No frame dropped in the last second.';
    this.#judge(diagnose(stats, measures, source));
    return { fps: fps.shown, behindMs: Object.values(parts).reduce((sum, part) => sum + part, 0) };
  }

  /** Resets all values to dashes when there is no session. */
  clear() {
    for (const name of Object.keys(TILES)) this.#tile(name, '–');
    this.#drops.textContent = '';
    this.#fps.clear();
    this.#latency.clear();
    this.#candidate = { part: 'none', seconds: 0 };
    this.#say({ part: 'none', title: 'No data yet', text: 'Start the camera to see what limits the stream: camera, upload, queue, model, or download.' });
  }

  #judge(found) {
    const seconds = found.part === this.#candidate.part ? this.#candidate.seconds + 1 : 1;
    this.#candidate = { part: found.part, seconds };
    const same = found.part === this.#verdict.dataset.part;
    // The numbers in the text change every second; screen readers announce only a new diagnosis.
    if (same) this.#text.textContent = found.text;
    else if (seconds >= STEADY || found.part === 'fine') this.#say(found);
  }

  #say({ part, title, text }) {
    this.#verdict.dataset.part = part;
    this.#title.textContent = title;
    this.#text.textContent = text;
  }

  #tile(name, value, note = TILES[name][1]) {
    this.#tiles[name].value.textContent = value;
    this.#tiles[name].note.textContent = note;
  }
}

function number(value, digits) {
  return Number.isFinite(value) ? value.toFixed(digits) : '–';
}
