/**
 * How it goes: the verdict, the plots and all figures. Draws what it is given and keeps nothing but its elements; refuses to know where the
 * figures come from.
 */

import { diagnose, latencyParts } from './diagnosis.js';
import { element, readable } from './parameters.js';
import { Plot } from './plots.js';

const TILES = {
  camera: ['Camera', 'fps'],
  sent: ['Sent', 'fps'],
  processed: ['Analysed', 'fps'],
  shown: ['Shown', 'fps'],
  residence: ['Gateway, p50', 'ms'],
  tail: ['Gateway, p95', 'ms'],
  network: ['Round trip', 'ms'],
  inbox: ['Inbox', 'ms'],
  decode: ['Decode', 'ms'],
  prepare: ['Prepare', 'ms'],
  queue: ['Queue', 'ms'],
  analyse: ['Model', 'ms'],
  turn: ['Turn', 'ms'],
  playout: ['Playout', 'ms'],
  compose: ['Compose', 'ms'],
  encode: ['Encode', 'ms'],
  cores: ['Cores', ''],
  picture: ['Picture', ''],
  codec: ['Codec', ''],
  bitrate: ['Bit rate', 'Mb/s'],
};
const STAGES = ['inbox', 'decode', 'prepare', 'queue', 'analyse', 'turn', 'playout', 'compose', 'encode'];
/** A verdict must stand this many seconds before it replaces another: one slow second is nobody's business. */
const STEADY = 3;

/** Lays the panel out with empty values, so that nothing moves when figures come. */
export class Figures {
  #tiles = {};
  #drops = document.querySelector('#drops');
  #verdict = document.querySelector('#verdict');
  #title = document.querySelector('#verdict-title');
  #text = document.querySelector('#verdict-text');
  #fps = new Plot('fps', 'Frames a second', { camera: 'Camera', analysed: 'Analysed', shown: 'Shown' }, { floor: 30 });
  #latency = new Plot('latency', 'Milliseconds behind the camera', { network: 'Network', codec: 'Codec', pixels: 'Painting', waiting: 'Waiting', model: 'Model' }, { stacked: true, floor: 60 });
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
   * @param {object} stats the gateway's, of the last second
   * @param {object} measures the browser's, over the same second
   * @param {number | null} shownFps frames that the page showed, if it can tell
   * @param {number} askedFps frames a second that the camera was asked for
   * @returns {{fps: number | null, behindMs: number}} the two figures that matter most
   */
  draw(stats, measures, shownFps, askedFps) {
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
    this.#judge(diagnose(stats, measures, askedFps));
    return { fps: fps.shown, behindMs: Object.values(parts).reduce((sum, part) => sum + part, 0) };
  }

  /** Back to dashes, when there is no session. */
  clear() {
    for (const name of Object.keys(TILES)) this.#tile(name, '–');
    this.#drops.textContent = '';
    this.#fps.clear();
    this.#latency.clear();
    this.#candidate = { part: 'none', seconds: 0 };
    this.#say({ part: 'none', title: 'Nothing to tell yet', text: 'With the camera on, this says what is slow: camera, uplink, queue, model, or the way back.' });
  }

  #judge(found) {
    const seconds = found.part === this.#candidate.part ? this.#candidate.seconds + 1 : 1;
    this.#candidate = { part: found.part, seconds };
    const same = found.part === this.#verdict.dataset.part;
    // The figures in its words change each second; who listens is told only when something else is slow.
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
