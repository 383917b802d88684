/**
 * What somebody else did to this session, such as an operator who took an effect off.
 *
 * Owns the notices: one that is urgent stays until it is dismissed, any other one until the next or until the visitor changes something.
 * Refuses to know sessions.
 */

import { element } from './parameters.js';

/** Effects whose purpose is to hide something. */
const HIDES = new Set(['background_blur', 'background_replace', 'face_anonymize']);

export class Changes {
  #place = document.querySelector('#changes');

  /** Shows a notice, `{title, text, urgent}`. */
  show({ title, text, urgent }) {
    this.#remove(urgent ? '.urgent' : ':not(.urgent)');
    // A screen reader says at once that something is no longer hidden.
    this.#place.setAttribute('aria-live', urgent ? 'assertive' : 'polite');
    const dismiss = element('button', { type: 'button', className: 'quiet', textContent: 'Dismiss', ariaLabel: `Dismiss: ${title}` });
    const notice = element('div', { className: urgent ? 'change urgent' : 'change' }, element('div', {}, element('strong', { textContent: title }), element('p', { textContent: text })), dismiss);
    dismiss.addEventListener('click', () => notice.remove());
    this.#place.append(notice);
    if (urgent && document.fullscreenElement) void document.exitFullscreen();
  }

  /** The visitor has changed something. */
  onOwnChange() {
    this.#remove(':not(.urgent)');
  }

  /** Another session begins. */
  clear() {
    this.#place.replaceChildren();
  }

  #remove(which) {
    for (const notice of this.#place.querySelectorAll(`.change${which}`)) notice.remove();
  }
}

/**
 * The notice for a change of the settings in force by somebody else.
 *
 * @param {{effect: string, params: object, by: string, previous: {effect: string | null, params: object}}} change as the SDK tells it
 * @param {(name: string) => string} titleOf an effect's name for people
 * @param {(name: string) => boolean} isOwn whether an effect is the operator's own, of which nobody here knows what it hides
 */
export function changeNotice({ effect, params, by, previous }, titleOf, isOwn = () => false) {
  const [before, now] = [previous.effect ?? '', effect].map((name) => name.split('+').filter(Boolean));
  const lost = before.filter((name) => (HIDES.has(name) || isOwn(name)) && !now.includes(name));
  const [was, is] = [lost.map(titleOf).join(' + '), titleOf(effect)];
  const choose = 'Choose an effect, mute the picture, or stop.';
  if (now.join() === 'none' && before.join() !== 'none') {
    return { urgent: true, title: `${titleOf(previous.effect ?? 'none')} was taken off by the operator`, text: `Without an effect, your camera is shown as it is. ${choose}` };
  }
  if (lost.length) return { urgent: true, title: `${was} was taken off by the operator`, text: `The effect was changed to ${is} by the operator, which may show what was hidden. ${choose}` };
  if (by === 'reload') return { urgent: false, title: `${is} was replaced by the operator`, text: 'The gateway has read its effects again; this session has the new version.' };
  if (before.join() !== now.join()) return { urgent: false, title: `The effect was changed to ${is} by the operator`, text: 'It is in force now. You can choose another one.' };
  const less = now.filter((name) => HIDES.has(name) && strength(params, name, now) < strength(previous.params, name, before));
  if (less.length) return { urgent: true, title: `${less.map(titleOf).join(' + ')} was made weaker by the operator`, text: `It may show what was hidden. ${choose}` };
  return { urgent: false, title: `The settings of ${is} were changed by the operator`, text: 'They are in force now. You can change them.' };
}

/** How strong one effect of a chain is; not a number where that is not known. */
function strength(params, name, chain) {
  const own = chain.length > 1 ? params?.[name] : params;
  return own?.strength ?? NaN;
}
