/**
 * The demo page: a source, an effect, the picture before and after, sharing, and the stream health.
 *
 * Owns the user interface and the order of events: list of effects, camera, session. All access to
 * the gateway uses the SDK, as on any other page. URL parameters: `?effect=…`, `?codec=vp8|h264`,
 * `?size=720p`, `?autostart`, `#token=…`. For the console and for tests: `window.changeEffect(name,
 * params)` and `window.ooblex.session`.
 */

import { OoblexError, connect, defaults, effects, publish } from '../sdk/ooblex.js';
import { Access } from './access.js';
import { Changes, changeNotice } from './changes.js';
import { Figures } from './figures.js';
import { showEffects } from './gallery.js';
import { latest } from './throttle.js';
import { element, showParameters } from './parameters.js';
import { Share } from './share.js';
import { Source } from './source.js';
import { Stage } from './stage.js';
import { Tools } from './tools.js';
import { COVER, END_TITLES, ERROR_TITLES, STATUS, insecureText, reconnectingText, scaledNotice, silentText, waitingText } from './texts.js';

const LIST_EVERY_MS = 5_000;
const WORKER_PATIENCE_MS = 3_000;
const TOLD_FOR_MS = 4_000;
/** Number of statistics in a row with a picture that is too large before the visitor is told. */
const SCALED_PATIENCE = 3;
const GATEWAY = new URL('.', document.baseURI);
const ASKED = new URLSearchParams(location.search);
/** Problems that the hint on the picture shows for as long as they last. */
const ABOUT_WORKERS = /:(no-worker|broker-down)$/;

const at = Object.fromEntries([...document.querySelectorAll('[id]')].map((found) => [found.id, found]));
const figures = new Figures();
const stage = new Stage(() => session && (at.cover.hidden = true));
const tools = new Tools(stage, tellShortly);
const source = new Source(switchSource);
const share = new Share({ begin: beginSharing, end: endSharing });
const later = latest(sendNow);
const changes = new Changes();
// Without a token the session cannot reconnect.
const access = new Access(() => void session?.close());

/** All effects by name, as the gateway last listed them. */
let known = new Map();
/** The chosen effect, or several joined by '+', whether or not a session uses them yet. */
let chosen = null;
/** True if several effects can be chosen. */
let combining = false;
/** The values that the visitor has set, for each effect. */
const settings = new Map();
let session = null;
let starting = null;
let waitingSince = null;
let placeholder = false;
let found = null;
/** The reason for the current loss of the connection, as last reported by the SDK. */
let reconnecting = {};
/** Number of pending changes of the effect. */
let changing = 0;
/** Number of statistics in a row in which the gateway scaled the picture down. */
let scaled = 0;
let isToldOfScaling = false;
/** A temporary text of the hint, which takes precedence over other texts. */
let told = '';

window.ooblex = { get session() { return session; } };
window.changeEffect = changeEffect;

await main();

async function main() {
  at.start.addEventListener('click', start);
  at.stop.addEventListener('click', stop);
  at.dismiss.addEventListener('click', () => (at.notice.hidden = true));
  at.effects.addEventListener('change', ({ target }) => pick(target.value));
  at.combine.addEventListener('click', combine);
  at.reset.addEventListener('click', () => {
    for (const name of parts()) settings.delete(name);
    drawParameters();
    later.send();
  });
  at.compare.addEventListener('click', () => {
    at.compare.ariaPressed = String(at.compare.ariaPressed !== 'true');
    stage.compare(at.compare.ariaPressed === 'true');
  });
  at.mute.addEventListener('click', () => {
    session.mute('video', !session.muted.video);
    at.mute.ariaPressed = String(session.muted.video);
  });
  at.microphone.addEventListener('click', switchMicrophone);
  at.share.addEventListener('click', () => share.open({ sound: isHeard(), secured: access.isUsed }));
  become('idle');
  if (!window.isSecureContext) tellInsecure();
  const ready = await loadEffects();
  setInterval(refreshEffects, LIST_EVERY_MS);
  if (ASKED.has('autostart') && ready && window.isSecureContext) await start();
}

// The session

/** Opens the source, then the session. The Stop button cancels it. */
async function start(click) {
  if (starting || session) return;
  starting = new AbortController();
  const { signal } = starting;
  at.notice.hidden = true;
  changes.clear();
  try {
    if (!chosen && !(await loadEffects())) return;
    if (!source.stream) {
      become('camera');
      await source.open({ signal });
    }
    stage.show({ input: source.stream });
    become('connecting');
    await begin((options) => connected(connect, options), signal);
    if (click) at.stop.focus({ preventScroll: true });
  } catch (error) {
    if (signal.aborted) return;
    if (!session) letGo();
    become('failed');
    if (error.code === 'insecure-context') tellInsecure();
    else tell(error);
  } finally {
    starting = null;
    if (!session && at.status.dataset.state !== 'failed') become('idle');
  }
}

/** Begins a session with the chosen effect. `open` gets the options for it. */
async function begin(open, signal) {
  const [effect, params] = [chosen, wanted()];
  const codec = ASKED.get('codec') ?? undefined;
  const made = await open({ url: GATEWAY, token: access.give, effect, params, source: source.stream, codec, signal });
  session = made;
  attach(made);
  if (chosen !== effect || JSON.stringify(wanted()) !== JSON.stringify(params)) later.send();
}

/** Opens a session. Asks for another token until one is accepted, or the visitor gives none. */
async function connected(open, options) {
  for (;;) {
    try {
      return await open(options);
    } catch (error) {
      if (error.code !== 'unauthorized' || !error.problem) throw error;
      await access.ask(error, options);
    }
  }
}

function attach(made) {
  stage.show({ input: made.input, output: made.output });
  [waitingSince, placeholder, found] = [null, false, null];
  become(made.state);
  made.on('state', (state) => made === session && state !== 'closed' && become(state));
  made.on('viewers', (viewers) => share.shows({ room: made.room, viewers }));
  share.shows({ room: made.room, viewers: made.viewers });
  made.on('source', ({ input }) => {
    if (made !== session) return;
    stage.show({ input });
    drawHint();
  });
  made.on('error', (error) => ABOUT_WORKERS.test(error.problem?.type) || tell(error));
  made.on('service', () => drawHint());
  made.on('settings', (change) => void follow(made, change));
  made.on('detections', ({ faces, objects = [] }) => (found = { faces: faces.length, objects: objects.length }));
  made.on('stats', (stats) => drawStats(made, stats));
  // A recorder cannot continue when its tracks are replaced.
  made.on('reconnecting', (about) => {
    tools.stopRecording();
    reconnecting = about;
    drawHint();
  });
  made.on('reconnected', () => tellShortly('The connection is restored.'));
  made.on('close', ({ error }) => {
    // Another session has taken its place.
    if (made !== session) return;
    session = null;
    letGo();
    figures.clear();
    become(error ? 'failed' : 'idle');
    if (error?.code === 'unauthorized' && error.problem) access.forget();
    if (error) tell(error);
  });
}

async function stop() {
  starting?.abort();
  await session?.close();
  letGo();
  become('idle');
  at.start.focus({ preventScroll: true });
}

/** Closes the source and clears the picture. */
function letGo() {
  source.close();
  stage.show({ input: null, output: null });
  at['chip-fps'].textContent = at['chip-latency'].textContent = at['chip-found'].textContent = '';
  at.microphone.ariaPressed = at.mute.ariaPressed = 'false';
  share.shows({ room: null, viewers: null });
}

/** Switches to another camera, resolution, the screen, or a file. */
async function switchSource(kind, open) {
  if (starting) return;
  at.notice.hidden = true;
  try {
    // Without a session, the choice of a camera or resolution applies to the next session.
    if (!session && kind === 'camera' && !source.stream) return;
    const { stream, release } = await open();
    if (session) await session.replaceSource(stream);
    release();
    if (session) at.mute.ariaPressed = String(session.muted.video);
    else await start();
  } catch (error) {
    // Closing the browser's screen picker is not an error.
    if (kind !== 'screen' || error.code !== 'permission-denied') tell(error);
  }
}

async function switchMicrophone() {
  const on = !isHeard();
  try {
    await session.useMicrophone(on);
    at.microphone.ariaPressed = String(on);
    tellShortly(on ? 'Audio is sent, and is included in recordings.' : 'No audio is sent.');
  } catch (error) {
    tell(error);
  }
}

// Sharing. A session is in a room from its beginning on, so that another session takes its place.

/**
 * Publishes to a room. The picture and the effect stay the same. Nothing is shared if `cancelled` is
 * aborted meanwhile.
 */
async function beginSharing({ room, sound, signal: cancelled }) {
  const before = session;
  if (!before) throw new OoblexError('closed', { detail: 'There is no session: start the camera first.' });
  const own = (starting = new AbortController());
  const { signal } = own;
  cancelled.addEventListener('abort', () => own.abort());
  try {
    await begin(async (options) => {
      const made = await connected((options) => publish(room, { ...options, echo: true }), options);
      if (session === before && !signal.aborted) return made;
      void made.close();
      throw new OoblexError('closed');
    }, signal);
  } finally {
    starting = null;
  }
  if (before.muted.video) session.mute('video');
  void before.close();
  at.microphone.ariaPressed = 'false';
  if (!sound) return;
  await session.useMicrophone(true);
  at.microphone.ariaPressed = 'true';
}

/** Ends the session of the room, and so its viewers; then another one begins that nobody watches. */
async function endSharing() {
  const [before, sound] = [session, isHeard()];
  if (!before) return;
  const { video: hidden } = before.muted;
  session = null;
  await before.close();
  await start();
  if (!session) return;
  if (hidden) session.mute('video');
  await restoreMicrophone(sound);
}

function isHeard() {
  return at.microphone.ariaPressed === 'true';
}

async function restoreMicrophone(on) {
  at.microphone.ariaPressed = 'false';
  if (on) await switchMicrophone();
}

// The effect

/** Changes the effect of the session; resolves with the gateway's ack. */
async function changeEffect(name, params = {}) {
  if (!session) throw new OoblexError('closed', { detail: 'There is no session: start the camera first.' });
  later.cancel();
  changes.onOwnChange();
  const before = chosen;
  choose(name, params);
  changing += 1;
  try {
    const ack = await session.changeEffect(name, params);
    // Detections of the earlier effect are obsolete.
    found = null;
    at['chip-found'].textContent = '';
    if (chosen === name) keep(name, ack.params, params);
    return ack;
  } catch (error) {
    if (chosen === name && session) choose(isKnown(session.effect) ? session.effect : before, session.params);
    throw error;
  } finally {
    changing -= 1;
    agree();
  }
}

/** Follows a change by somebody else: updates label, tile and settings, and tells the visitor. */
async function follow(made, change) {
  later.cancel();
  found = null;
  at['chip-found'].textContent = '';
  if (!isKnown(change.effect)) await loadEffects({ quiet: true });
  if (made !== session) return;
  if (session.effect === change.effect) take(change.effect, change.params);
  changes.show(changeNotice(change, titleOf, (name) => Boolean(known.get(name)?.own)));
}

/** Shows the effect in force when all pending changes are answered. */
function agree() {
  if (!changing && session?.effect && session.effect !== chosen) take(session.effect, session.params);
}

/** Handles a click in the gallery. */
async function pick(name) {
  at.notice.hidden = true;
  const others = parts().filter((other) => other !== name);
  const names = !combining ? [name] : parts().includes(name) ? others : [...others.filter((other) => other !== 'none'), name];
  // At least one effect must be chosen.
  if (!names.length) return drawEffects();
  const asked = names.join('+');
  if (!session) return choose(asked, wanted(names));
  await changeEffect(asked, wanted(names)).catch(tell);
}

/** Switches between choosing several effects and a single one, which is then the first. */
async function combine() {
  combining = !combining;
  at.combine.ariaPressed = String(combining);
  if (combining || parts().length < 2) return drawEffects();
  const [first] = parts();
  if (session) await changeEffect(first, settings.get(first)).catch(tell);
  else choose(first, settings.get(first));
}

/** Returns the names of the chosen effects, in order. */
function parts() {
  return chosen?.split('+') ?? [];
}

/**
 * Returns the settings of these effects in the gateway's format: grouped by effect if there are
 * several.
 */
function wanted(names = parts()) {
  return names.length === 1 ? settings.get(names[0]) : Object.fromEntries(names.map((name) => [name, settings.get(name) ?? {}]));
}

function isKnown(name) {
  return Boolean(name) && name.split('+').every((part) => known.has(part));
}

function choose(name, params = {}) {
  if (isKnown(name)) take(name, params);
}

/** Shows this effect as the current one, even if it is not offered any more. */
function take(name, params = {}) {
  chosen = name;
  const names = parts();
  for (const part of names) settings.set(part, { ...defaults(known.get(part)?.parameters), ...(names.length === 1 ? params : params?.[part]) });
  combining ||= names.length > 1;
  at.combine.ariaPressed = String(combining);
  drawEffects();
  drawParameters();
}

/** Adopts the values that the gateway confirmed, unless the visitor has changed them since. */
function keep(name, confirmed, sent) {
  if (parts().length > 1) return;
  const now = settings.get(name);
  const moved = Object.entries(sent).some(([key, value]) => JSON.stringify(now[key]) !== JSON.stringify(value));
  if (!moved) settings.set(name, { ...now, ...confirmed });
}

async function sendNow() {
  if (!session) return;
  changes.onOwnChange();
  changing += 1;
  try {
    await session.changeEffect(chosen, wanted());
    at.notice.hidden = true;
  } catch (error) {
    if (session) tell(error);
  } finally {
    changing -= 1;
    agree();
  }
}

/** Loads the gateway's list of effects; returns whether there is an effect to start with. */
async function loadEffects({ quiet = false } = {}) {
  const before = JSON.stringify([...known.values()]);
  try {
    const { effects: list, backend, chains } = await effects(GATEWAY);
    at.combine.hidden = !chains;
    known = new Map(list.map((effect) => [effect.name, effect]));
    at.backend.textContent = backend ? `Models run on ${backend}.` : '';
  } catch (error) {
    if (quiet) return false;
    tell(error);
    become('failed');
    return false;
  }
  // A session keeps its effect even if it is not offered any more; the visitor can choose another
  // one.
  if (isKnown(chosen) || session) {
    if (JSON.stringify([...known.values()]) !== before) drawEffects();
    return true;
  }
  const asked = ASKED.get('effect');
  // Without workers, prefer an effect that waits for a worker to no effect, so that no unprocessed
  // picture is shown unless the visitor asked for it.
  const all = [...known.values()];
  const withModels = all.filter((effect) => effect.models.length);
  choose(isKnown(asked) ? asked : (withModels.find((effect) => effect.available) ?? withModels[0] ?? all[0])?.name);
  if (asked && !isKnown(asked)) {
    notify('Unknown effect', `The URL of this page asks for the effect '${asked}'. Available effects: ${[...known.keys()].join(', ')}.`);
    return false;
  }
  return known.size > 0;
}

/**
 * Reloads the list periodically: the gateway may have started, and the number of workers changes.
 */
async function refreshEffects() {
  if (document.hidden || starting || session?.state === 'reconnecting') return;
  const missing = !known.size;
  const ready = await loadEffects({ quiet: true });
  if (missing && ready && !session) {
    at.notice.hidden = window.isSecureContext;
    become('idle');
  }
}

// Display

function drawEffects() {
  showEffects(at.effects, [...known.values()], parts(), combining);
  at['tag-after'].textContent = titleOf(chosen) ?? 'After';
}

/** Returns the display name of an effect or of a chain. */
function titleOf(name) {
  return name?.split('+').map((part) => known.get(part)?.title ?? part).join(' + ');
}

function drawParameters() {
  const names = parts();
  const schemas = names.map((name) => known.get(name)?.parameters);
  at.reset.hidden = !schemas.some((schema) => Object.keys(schema?.properties ?? {}).length);
  const places = names.map((name, index) => {
    const place = element('div');
    if (!settings.has(name)) settings.set(name, defaults(schemas[index]));
    showParameters(place, schemas[index], settings.get(name), (values) => {
      settings.set(name, values);
      later.send();
    }, `parameter-${name}`);
    return place;
  });
  // A single effect needs no heading.
  const sections = names.map((name, index) => element('section', {}, ...(names.length > 1 ? [element('h3', { textContent: titleOf(name) })] : []), ...places[index].childNodes));
  at.parameters.replaceChildren(...sections);
}

async function drawStats(made, stats) {
  const measures = await made.measure();
  if (made !== session) return;
  const { fps, behindMs } = figures.draw(stats, measures, stage.shownFps(), { fps: source.askedFps, silent: made.sourceState === 'silent', muted: made.muted.video });
  at['chip-fps'].textContent = Number.isFinite(fps) ? `${Math.round(fps)} fps` : '';
  at['chip-latency'].textContent = stats.fps_out > 0 ? `${Math.round(behindMs)} ms` : '';
  at['chip-found'].textContent = found === null ? '' : counted(found.faces, 'face') + (found.objects ? `, ${counted(found.objects, 'object')}` : '');
  found = null;
  placeholder = stats.placeholder;
  waitingSince = stats.state === 'waiting' || placeholder ? (waitingSince ?? performance.now()) : null;
  drawHint();
  const notice = scaledNotice(stats);
  scaled = notice ? scaled + 1 : 0;
  if (scaled === SCALED_PATIENCE && !isToldOfScaling) {
    isToldOfScaling = true;
    changes.show(notice);
  }
}

/** Updates the hint over the picture. */
function drawHint() {
  const { effect, state } = session?.service ?? {};
  const waiting = waitingText({
    service: state,
    title: titleOf(effect),
    placeholder,
    waiting: waitingSince !== null,
    gone: Boolean(effect) && !isKnown(effect),
    long: waitingSince !== null && performance.now() - waitingSince >= WORKER_PATIENCE_MS,
  });
  const connection = { interrupted: 'No media is received at the moment.', reconnecting: reconnectingText(reconnecting) }[session?.state];
  const silent = session?.sourceState === 'silent' ? silentText(source.kind) : '';
  const text = connection ?? (told || silent || (session ? waiting : ''));
  if (at.hint.textContent !== text) at.hint.textContent = text;
}

function become(state) {
  at.status.dataset.state = state;
  at.status.textContent = state === 'live' && session?.room ? 'Live, shared' : STATUS[state];
  const on = ['live', 'interrupted', 'reconnecting'].includes(state);
  const busy = state === 'camera' || state === 'connecting';
  at.stop.hidden = !on && !busy;
  at.start.hidden = on || busy;
  at.start.disabled = !window.isSecureContext;
  at.start.textContent = state === 'failed' ? 'Try again' : 'Start camera';
  at.cover.hidden = on && stage.hasPicture;
  at['cover-text'].textContent = COVER[state];
  at.mute.disabled = at.microphone.disabled = at.share.disabled = state !== 'live';
  tools.enable(on);
  drawHint();
}

function tell(error) {
  if (!(error instanceof OoblexError)) console.error(error);
  const about = error.problem?.title && error.code !== 'gateway-error' ? `${error.problem.title}: ` : '';
  const wait = error.retryAfterMs ? ` The gateway asks to wait for ${Math.ceil(error.retryAfterMs / 1000)} s.` : '';
  notify(END_TITLES[error.reason] ?? ERROR_TITLES[error.code] ?? 'Something went wrong in this page', about + (error.detail ?? error.message) + wait);
}

function tellInsecure() {
  notify(ERROR_TITLES['insecure-context'], insecureText(location));
}

function notify(title, text) {
  at['notice-title'].textContent = title;
  at['notice-text'].textContent = text;
  at.notice.hidden = false;
}

/** Shows a temporary text over the picture. */
function tellShortly(text) {
  told = text;
  drawHint();
  setTimeout(() => {
    if (told === text) told = '';
    drawHint();
  }, TOLD_FOR_MS);
}

function counted(count, word) {
  return `${count} ${word}${count === 1 ? '' : 's'}`;
}
