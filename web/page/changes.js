/**
 * Changes that somebody else made to this session, such as an operator who removed an effect.
 *
 * Owns the notices: an urgent one stays until it is dismissed, any other one until the next or
 * until the visitor changes something. Refuses to know sessions.
 */

import { element } from './parameters.js';

/** Effects whose purpose is to hide something. */
const HIDES = new Set(['background_blur', 'background_replace', 'face_anonymize']);

export class Changes {
  #place = document.querySelector('#changes');

  /** Shows a notice, `{title, text, urgent}`. */
  show({ title, text, urgent }) {
    this.#remove(urgent ? '.urgent' : ':not(.urgent)');
    // Screen readers announce at once that something is no longer hidden.
    this.#place.setAttribute('aria-live', urgent ? 'assertive' : 'polite');
    const dismiss = element('button', { type: 'button', className: 'quiet', textContent: 'Dismiss', ariaLabel: `Dismiss: ${title}` });
    const notice = element('div', { className: urgent ? 'change urgent' : 'change' }, element('div', {}, element('strong', { textContent: title }), element('p', { textContent: text })), dismiss);
    dismiss.addEventListener('click', () => notice.remove());
    this.#place.append(notice);
    if (urgent && document.fullscreenElement) void document.exitFullscreen();
  }

  /** Removes notices that are not urgent, because the visitor has changed something. */
  onOwnChange() {
    this.#remove(':not(.urgent)');
  }

  /** Removes all notices when another session begins. */
  clear() {
    this.#place.replaceChildren();
  }

  #remove(which) {
    for (const notice of this.#place.querySelectorAll(`.change${which}`)) notice.remove();
  }
}

/**
 * Returns the notice for a change of the settings by somebody else.
 *
 * @param {{effect: string, params: object, by: string, previous: {effect: string | null, params:
 *   object}}} change as reported by the SDK
 * @param {(name: string) => string} titleOf returns the display name of an effect
 * @param {(name: string) => boolean} isOwn returns whether an effect is a custom effect, which may
 *   hide something
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
  if (by === 'reload') return { urgent: false, title: `${is} was replaced by the operator`, text: 'The gateway has reloaded its effects; this session uses the new version.' };
  if (before.join() !== now.join()) return { urgent: false, title: `The effect was changed to ${is} by the operator`, text: 'It is in force now. You can choose another one.' };
  const less = now.filter((name) => HIDES.has(name) && strength(params, name, now) < strength(previous.params, name, before));
  if (less.length) return { urgent: true, title: `${less.map(titleOf).join(' + ')} was made weaker by the operator`, text: `It may show what was hidden. ${choose}` };
  return { urgent: false, title: `The settings of ${is} were changed by the operator`, text: 'They are in force now. You can change them.' };
}

/** Returns the strength of one effect of a chain, or NaN if it is unknown. */
function strength(params, name, chain) {
  const own = chain.length > 1 ? params?.[name] : params;
  return own?.strength ?? NaN;
}
