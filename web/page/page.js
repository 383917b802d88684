/**
 * The demo page: camera on, effect chosen, both pictures side by side, true figures.
 *
 * Owns what the visitor sees and the order of events: list of effects, camera, session. Everything about the gateway goes through
 * the SDK, as on anybody's page. In the URL: `?effect=…`, `?codec=vp8|h264`, `?autostart`. For the console and for tests:
 * `window.changeEffect(name, params)` and `window.ooblex.session`.
 */

import { OoblexError, connect, defaults, effects, openCamera } from '../sdk/ooblex.js';
import { Figures } from './figures.js';
import { element, showParameters } from './parameters.js';

const SEND_EVERY_MS = 60;
const LIST_EVERY_MS = 5_000;
const WORKER_PATIENCE_MS = 3_000;
const GATEWAY = new URL('.', document.baseURI);
const ASKED = new URLSearchParams(location.search);

const ERROR_TITLES = {
  'insecure-context': 'This page cannot use the camera',
  'no-camera': 'No camera',
  'permission-denied': 'No permission',
  'camera-busy': 'The camera is busy',
  'gateway-unreachable': 'The gateway does not answer',
  'offer-rejected': 'The gateway refused to connect',
  'connection-failed': 'No media comes through',
  'effect-rejected': 'The effect was not changed',
  'gateway-error': 'The gateway reported a problem',
  closed: 'The session has ended',
  timeout: 'The change was not confirmed',
};

/** Problems that the hint on the picture tells of, for as long as they last. */
const ABOUT_WORKERS = /:(no-worker|broker-down)$/;

const STATUS = { idle: 'Ready', camera: 'Asking for the camera', connecting: 'Connecting', live: 'Live', interrupted: 'Interrupted', failed: 'Not connected' };

const at = Object.fromEntries([...document.querySelectorAll('[id]')].map((found) => [found.id, found]));
const figures = new Figures();

/** All effects by name, as the gateway last listed them. */
let known = new Map();
/** The effect that is chosen, whether or not a session has it yet. */
let chosen = null;
/** The values that the visitor set, for each effect. */
const settings = new Map();
let camera = null;
let session = null;
let starting = null;
let waitingSince = null;
let placeholder = false;
let facesSeen = null;
const shown = { frames: 0, since: performance.now() };

window.ooblex = { get session() { return session; } };
window.changeEffect = changeEffect;

await main();

async function main() {
  at.start.addEventListener('click', start);
  at.stop.addEventListener('click', stop);
  at.dismiss.addEventListener('click', () => (at.notice.hidden = true));
  at.effects.addEventListener('change', ({ target }) => pick(target.value));
  at.reset.addEventListener('click', () => {
    settings.delete(chosen);
    drawParameters();
    sendSettings();
  });
  at.source.addEventListener('resize', () => fitShape());
  countShown();
  become('idle');
  if (!window.isSecureContext) tellInsecure();
  const ready = await loadEffects();
  setInterval(refreshEffects, LIST_EVERY_MS);
  if (ASKED.has('autostart') && ready && window.isSecureContext) await start();
}

/** Starts the camera, then the session. Another click, or Stop, gives up. */
async function start(click) {
  if (starting || session) return;
  starting = new AbortController();
  const { signal } = starting;
  at.notice.hidden = true;
  try {
    if (!chosen && !(await loadEffects())) return;
    if (!camera) {
      become('camera');
      camera = await openCamera(undefined, { signal });
      showCamera();
    }
    become('connecting');
    const [effect, params] = [chosen, settings.get(chosen)];
    const codec = ASKED.get('codec') ?? undefined;
    session = await connect({ url: GATEWAY, effect, params, source: camera, codec, signal });
    attach(session);
    if (click) at.stop.focus({ preventScroll: true });
    if (chosen !== effect || settings.get(chosen) !== params) sendSettings();
  } catch (error) {
    if (signal.aborted) return;
    if (error.code === 'no-camera') dropCamera();
    become('failed');
    if (error.code === 'insecure-context') tellInsecure();
    else tell(error);
  } finally {
    starting = null;
    if (!session && at.status.dataset.state !== 'failed') become('idle');
  }
}

function attach(made) {
  at.output.srcObject = made.output;
  waitingSince = null;
  placeholder = false;
  facesSeen = null;
  become(made.state);
  made.on('state', (state) => state !== 'closed' && become(state));
  made.on('error', (error) => ABOUT_WORKERS.test(error.problem?.type) || tell(error));
  made.on('service', () => drawWaiting());
  made.on('detections', ({ faces }) => (facesSeen = faces.length));
  made.on('stats', (stats) => drawStats(made, stats));
  made.on('close', ({ error }) => {
    session = null;
    at.output.srcObject = null;
    dropCamera();
    figures.clear();
    at['output-note'].textContent = at.hint.textContent = '';
    become(error ? 'failed' : 'idle');
    if (error) tell(error);
  });
}

async function stop() {
  starting?.abort();
  await session?.close();
  dropCamera();
  become('idle');
  at.start.focus({ preventScroll: true });
}

/** Changes the effect of the session; resolves with the gateway's ack. */
async function changeEffect(name, params = {}) {
  if (!session) throw new OoblexError('closed', { detail: 'There is no session: start the camera first.' });
  later.cancel();
  const before = chosen;
  choose(name, params);
  try {
    const ack = await session.changeEffect(name, params);
    if (chosen === name) keep(name, ack.params, params);
    return ack;
  } catch (error) {
    if (chosen === name && session) choose(known.has(session.effect) ? session.effect : before, session.params);
    throw error;
  }
}

/** A click in the gallery. */
async function pick(name) {
  at.notice.hidden = true;
  if (!session) return choose(name, settings.get(name));
  await changeEffect(name, settings.get(name)).catch(tell);
}

function choose(name, params = {}) {
  if (!known.has(name)) return;
  chosen = name;
  settings.set(name, { ...defaults(known.get(name).parameters), ...params });
  facesSeen = null;
  drawEffects();
  drawParameters();
}

/** Takes over what the gateway confirmed, unless the visitor has moved on. */
function keep(name, confirmed, sent) {
  const now = settings.get(name);
  const moved = Object.entries(sent).some(([key, value]) => JSON.stringify(now[key]) !== JSON.stringify(value));
  if (!moved) settings.set(name, { ...now, ...confirmed });
}

/** Sends the newest settings, at most every 60 ms, and never while an earlier change waits for its ack: the latest wins. */
const later = (() => {
  let timer = null;
  let sending = false;
  let again = false;
  const send = async () => {
    timer = null;
    if (!session) return;
    sending = true;
    try {
      await session.changeEffect(chosen, settings.get(chosen));
      at.notice.hidden = true;
    } catch (error) {
      if (session) tell(error);
    } finally {
      sending = false;
      if (again) arm();
    }
  };
  const arm = () => {
    again = sending;
    if (!sending) timer ??= setTimeout(send, SEND_EVERY_MS);
  };
  const cancel = () => {
    clearTimeout(timer);
    timer = null;
    again = false;
  };
  return { arm, cancel };
})();

function sendSettings() {
  if (session) later.arm();
}

/** Takes the gateway's list of effects; gives back whether there is an effect to start with. */
async function loadEffects({ quiet = false } = {}) {
  const before = JSON.stringify([...known.values()]);
  try {
    const { effects: list, backend } = await effects(GATEWAY);
    known = new Map(list.map((effect) => [effect.name, effect]));
    at.backend.textContent = backend ? `Models run on ${backend}.` : '';
  } catch (error) {
    if (quiet) return false;
    tell(error);
    become('failed');
    return false;
  }
  if (known.has(chosen)) {
    if (JSON.stringify([...known.values()]) !== before) drawEffects();
    return true;
  }
  const asked = ASKED.get('effect');
  // Without workers rather an effect that waits for one than none: nobody is shown a raw picture who did not ask for it.
  const all = [...known.values()];
  const withModels = all.filter((effect) => effect.models.length);
  choose(known.has(asked) ? asked : (withModels.find((effect) => effect.available) ?? withModels[0] ?? all[0])?.name);
  if (asked && !known.has(asked)) {
    notify('Unknown effect', `The address of this page asks for the effect '${asked}'. There are: ${[...known.keys()].join(', ')}.`);
    return false;
  }
  return known.size > 0;
}

/** Asks again now and then: the gateway may have come, workers come and go. */
async function refreshEffects() {
  if (document.hidden || starting) return;
  const missing = !known.size;
  const ready = await loadEffects({ quiet: true });
  if (missing && ready && !session) {
    at.notice.hidden = window.isSecureContext;
    become('idle');
  }
}

function drawEffects() {
  const focused = at.effects.contains(document.activeElement);
  const cards = [...known.values()].map((effect) => {
    const { name, title, description, available, unavailable_reason: reason } = effect;
    const input = element('input', { type: 'radio', name: 'effect', value: name, checked: name === chosen, disabled: !available && name !== chosen });
    const about = available ? description : (reason ?? 'Not available now.');
    const text = element('span', { className: 'card-text' }, element('strong', { textContent: title }), element('small', { textContent: about }));
    return element('label', { className: available ? 'card' : 'card unavailable' }, input, glyph(name), text);
  });
  at.effects.replaceChildren(...cards);
  if (focused) at.effects.querySelector(':checked')?.focus();
  at['output-title'].textContent = known.get(chosen)?.title ?? 'Effect';
}

function glyph(name) {
  const id = document.getElementById(`glyph-${name}`) ? `glyph-${name}` : 'glyph-other';
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `#${id}`);
  svg.setAttribute('aria-hidden', 'true');
  svg.append(use);
  return svg;
}

function drawParameters() {
  const schema = known.get(chosen)?.parameters;
  const name = chosen;
  if (!settings.has(name)) settings.set(name, defaults(schema));
  at.reset.hidden = !Object.keys(schema?.properties ?? {}).length;
  showParameters(at.parameters, schema, settings.get(name), (values) => {
    settings.set(name, values);
    sendSettings();
  });
}

async function drawStats(made, stats) {
  const measures = await made.measure();
  if (made !== session) return;
  const now = performance.now();
  const fps = shown.supported ? (shown.frames * 1000) / (now - shown.since) : null;
  Object.assign(shown, { frames: 0, since: now });
  figures.draw(stats, measures, fps);
  at['output-note'].textContent = facesSeen === null ? '' : `${facesSeen} ${facesSeen === 1 ? 'face' : 'faces'}`;
  facesSeen = null;
  drawWaiting(stats);
}

/** Says why the picture stands still or is a stand-in: a moment is normal, and longer has a reason. */
function drawWaiting(stats) {
  if (stats) {
    placeholder = stats.placeholder;
    waitingSince = stats.state === 'waiting' || placeholder ? (waitingSince ?? performance.now()) : null;
  }
  const { effect, state } = session?.service ?? {};
  const title = known.get(effect)?.title ?? effect;
  const why = { no_worker: `No worker serves ${title} now. `, broker_down: 'The gateway has lost the way to its workers. ' }[state] ?? '';
  const what = placeholder ? 'A stand-in is shown' : 'The last picture is held';
  const slow = waitingSince !== null && performance.now() - waitingSince >= WORKER_PATIENCE_MS;
  const text = why ? `${why}${what}; it goes on by itself.` : waitingSince === null ? '' : `${what} until a result comes.${slow ? ' The workers may be busy or stuck.' : ''}`;
  if (at.hint.textContent !== text) at.hint.textContent = text;
}

function showCamera() {
  at.source.srcObject = camera;
  const { width, height } = camera.getVideoTracks()[0].getSettings();
  if (width && height) fitShape(width, height);
}

/** Gives both pictures the camera's shape. */
function fitShape(width = at.source.videoWidth, height = at.source.videoHeight) {
  if (!width || !height) return;
  at.stage.style.setProperty('--shape', width / height);
  at['source-note'].textContent = `${width}×${height}`;
}

function dropCamera() {
  for (const track of camera?.getTracks() ?? []) track.stop();
  camera = null;
  at.source.srcObject = null;
  at['source-note'].textContent = '';
}

function countShown() {
  shown.supported = 'requestVideoFrameCallback' in at.output;
  if (!shown.supported) return;
  let last = 0;
  const count = (_, { presentedFrames }) => {
    shown.frames += Math.max(0, presentedFrames - last);
    last = presentedFrames;
    if (session) at.cover.hidden = true;
    at.output.requestVideoFrameCallback(count);
  };
  at.output.requestVideoFrameCallback(count);
}

function become(state) {
  at.status.dataset.state = state;
  at.status.textContent = STATUS[state];
  const on = state === 'live' || state === 'interrupted';
  const busy = state === 'camera' || state === 'connecting';
  at.stop.hidden = !on && !busy && !camera;
  at.start.hidden = on || busy;
  at.start.disabled = !window.isSecureContext;
  at.start.textContent = state === 'failed' ? 'Try again' : 'Start camera';
  at.cover.hidden = on && at.output.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA && Boolean(at.output.srcObject);
  at['cover-text'].textContent = {
    camera: 'Allow the camera when the browser asks.',
    connecting: 'Connecting…',
    live: 'Waiting for the first picture…',
    interrupted: 'Waiting for the connection to come back…',
    failed: '',
  }[state] ?? 'The picture goes to this gateway and nowhere else.';
  if (state === 'interrupted') at.hint.textContent = 'No media comes through at the moment.';
  else if (!waitingSince) at.hint.textContent = '';
}

function tell(error) {
  if (!(error instanceof OoblexError)) console.error(error);
  const about = error.problem?.title && error.code !== 'gateway-error' ? `${error.problem.title}: ` : '';
  notify(ERROR_TITLES[error.code] ?? 'Something went wrong in this page', about + (error.detail ?? error.message));
}

function tellInsecure() {
  const port = location.port || '80';
  notify(
    ERROR_TITLES['insecure-context'],
    `It was opened over plain http from ${location.hostname}; browsers give the camera to https pages and to localhost only. ` +
      `On the gateway's own machine open http://localhost:${port}/. From this machine either put https in front of the gateway, or ` +
      `run “ssh -L ${port}:localhost:${port} ${location.hostname}” and open http://localhost:${port}/ here.`,
  );
}

function notify(title, text) {
  at['notice-title'].textContent = title;
  at['notice-text'].textContent = text;
  at.notice.hidden = false;
}
