/**
 * The page of a viewer: the picture and the sound of a room, full screen, and the number of viewers.
 *
 * All access to the gateway uses the SDK, as on any other page. The name of the room is in the `#`
 * part of the URL (`#room=…`), with a token (`token=…`) where the gateway asks for one. For the
 * console and for tests: `window.ooblex.viewer`.
 */

import { OoblexError, watch } from '../sdk/ooblex.js';
import { Access } from './access.js';
import { WATCH_STATUS, audienceText, watchProblem, watchText } from './texts.js';

const GATEWAY = new URL('.', document.baseURI);
const at = Object.fromEntries([...document.querySelectorAll('[id]')].map((found) => [found.id, found]));
const access = new Access(() => void viewer?.close());
const room = new URLSearchParams(location.hash.slice(1)).get('room');

let viewer = null;
let hasPicture = false;
/** The failure of the last connection or attempt, as reported by the SDK. */
let trouble = null;

window.ooblex = { get viewer() { return viewer; } };

main();

function main() {
  addEventListener('hashchange', () => new URLSearchParams(location.hash.slice(1)).get('room') !== room && location.reload());
  at.again.addEventListener('click', () => void again());
  for (const button of [at.unmute, at.sound]) button.addEventListener('click', () => void listen(at.picture.muted));
  at.picture.addEventListener('volumechange', draw);
  at.picture.addEventListener('resize', () => at.screen.style.setProperty('--shape', at.picture.videoWidth / at.picture.videoHeight || 4 / 3));
  at.picture.addEventListener('loadeddata', () => {
    hasPicture = true;
    draw();
  });
  at.full.hidden = !(document.fullscreenEnabled || at.picture.webkitEnterFullscreen);
  at.full.addEventListener('click', () => void fullScreen());
  document.addEventListener('fullscreenchange', () => (at.full.ariaPressed = String(Boolean(document.fullscreenElement))));
  // The viewer has ended when the page was left.
  addEventListener('pageshow', ({ persisted }) => persisted && void open());
  // What is live has no pause: phones pause it when they leave full screen, or for a call.
  for (const event of ['pause', 'webkitendfullscreen']) at.picture.addEventListener(event, () => viewer && void at.picture.play().catch(() => {}));
  void open();
}

/** Opens the viewer; it waits by itself while nobody publishes. */
async function open() {
  [trouble, hasPicture] = [null, false];
  draw();
  if (!isName(room)) return fail({ code: 'link' });
  try {
    attach(await admitted({ url: GATEWAY, token: access.give, wait: true }));
  } catch (error) {
    fail(error);
  }
}

/** Asks for another token until one is accepted, or the visitor gives none. */
async function admitted(options) {
  for (;;) {
    try {
      return await watch(room, options);
    } catch (error) {
      if (error.code !== 'unauthorized' || !error.problem) throw error;
      await access.ask(error);
    }
  }
}

function attach(made) {
  viewer = made;
  at.picture.srcObject = made.output;
  for (const event of ['state', 'active', 'viewers', 'sound']) made.on(event, draw);
  made.on('reconnecting', ({ error }) => {
    trouble = error;
    draw();
  });
  made.on('reconnected', () => {
    trouble = null;
    draw();
  });
  made.on('close', ({ error }) => {
    viewer = null;
    fail(error ?? new OoblexError('closed'));
  });
  draw();
}

function fail(error) {
  if (!(error instanceof OoblexError || error.code === 'link')) console.error(error);
  trouble = error;
  draw();
}

/** Tries again, with another token if this one does not allow to watch. */
async function again() {
  try {
    if (['forbidden', 'no-token'].includes(trouble?.code)) await access.ask(trouble);
    await open();
  } catch (error) {
    fail(error);
  }
}

/** Turns the sound on or off. Browsers allow sound only after the visitor has asked for it. */
async function listen(on) {
  at.picture.muted = !on;
  draw();
  if (on) at.sound.focus({ preventScroll: true });
  await at.picture.play().catch(() => (at.picture.muted = true));
  draw();
}

async function fullScreen() {
  if (document.fullscreenElement) return document.exitFullscreen();
  if (document.fullscreenEnabled) return at.stage.requestFullscreen().catch(() => {});
  at.picture.webkitEnterFullscreen();
}

/** Returns whether this is the name of a room: a link may have lost a part on its way. */
function isName(room) {
  return /^[\w.~-]{1,64}$/.test(room ?? '') && !/^\.+$/.test(room);
}

/** Shows the state. */
function draw() {
  const state = viewer?.state ?? (trouble ? 'failed' : 'connecting');
  const isAway = state === 'live' && viewer.active === false;
  const text = state === 'failed' ? watchProblem(trouble) : watchText({ state, isAway, hasPicture, code: trouble?.code });
  const isHeld = hasPicture && (isAway || state === 'interrupted' || state === 'reconnecting');
  // A picture that is held has a line of text on it, everything else hides what is left of it.
  at.cover.hidden = hasPicture && ['live', 'interrupted', 'reconnecting'].includes(state);
  at.screen.classList.toggle('held', isHeld);
  say(at['cover-title'], text.title);
  say(at['cover-text'], text.text);
  say(at.hint, isHeld ? text.title : '');
  at.again.hidden = state !== 'failed' || text.isFinal;
  say(at.again, trouble?.code === 'forbidden' ? 'Use another token' : 'Try again');
  at.status.dataset.state = isAway ? 'waiting' : state;
  say(at.status, isAway ? WATCH_STATUS.waiting : WATCH_STATUS[state]);
  const isShown = at.cover.hidden;
  const hasSound = Boolean(viewer?.sound);
  at.unmute.hidden = !(isShown && hasSound && at.picture.muted);
  at.sound.disabled = !isShown || !hasSound;
  at.sound.ariaPressed = String(hasSound && !at.picture.muted);
  at.sound.title = !hasSound ? 'No sound is sent' : at.picture.muted ? 'Turn sound on' : 'Turn sound off';
  at.full.disabled = !isShown;
  const count = isShown && state === 'live' ? viewer?.viewers : null;
  at.audience.hidden = count === null || count === undefined;
  at.audience.title = audienceText(count ?? null);
  say(at['audience-count'], String(count ?? ''));
}

/** Sets a text only if it is another one, so that screen readers do not repeat it. */
function say(place, text = '') {
  if (place.textContent !== text) place.textContent = text;
}
