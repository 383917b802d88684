/**
 * The gallery of effects: one tile per effect, with its picture. Owns the tiles; refuses to know
 * sessions.
 */

import { element } from './parameters.js';

const SVG = 'http://www.w3.org/2000/svg';

/**
 * Fills `place` with a tile for each effect.
 *
 * @param {HTMLElement} place the group element
 * @param {object[]} effects as the gateway lists them
 * @param {string[]} chosen the names of the current effects, in order
 * @param {boolean} several whether more than one effect can be chosen
 */
export function showEffects(place, effects, chosen, several) {
  place.setAttribute('role', several ? 'group' : 'radiogroup');
  const active = document.activeElement?.value;
  const focused = place.contains(document.activeElement);
  const { scrollLeft, scrollTop } = place;
  place.replaceChildren(...effects.map((effect) => tile(effect, chosen.indexOf(effect.name), several)));
  Object.assign(place, { scrollLeft, scrollTop });
  if (focused) ([...place.querySelectorAll('input')].find(({ value }) => several && value === active) ?? place.querySelector(':checked'))?.focus();
}

/** `place` is the index of the effect among the chosen ones; negative if it is not chosen. */
function tile({ name, title, description, available, unavailable_reason: reason, thumbnail }, place, several) {
  const checked = place >= 0;
  const id = `effect-${name.replaceAll(/\W/g, '-')}`;
  const input = element('input', { type: several ? 'checkbox' : 'radio', name: 'effect', value: name, checked, disabled: !available && !checked });
  input.setAttribute('aria-labelledby', `${id}-title`);
  input.setAttribute('aria-describedby', `${id}-about`);
  const about = available ? description : (reason ?? 'Not available now.');
  const text = element('span', { className: 'tile-text' }, element('strong', { id: `${id}-title`, textContent: title }), element('small', { id: `${id}-about`, textContent: about }));
  const made = element('label', { className: available ? 'tile' : 'tile unavailable', title: about }, input, thumbnail ? picture(thumbnail, name) : drawn(name), several && checked ? element('span', { className: 'tick', textContent: place + 1 }) : tick(), text);
  return made;
}

function picture(source, name) {
  const img = element('img', { src: source, alt: '', loading: 'lazy', decoding: 'async' });
  img.addEventListener('error', () => img.replaceWith(drawn(name)), { once: true });
  return img;
}

/** Returns a placeholder for an effect without a picture, with a colour derived from its name. */
function drawn(name) {
  const made = element('span', { className: 'drawn' }, use('glyph-effect'));
  const hue = [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
  made.style.background = `linear-gradient(140deg, hsl(${hue} 62% 46%), hsl(${(hue + 55) % 360} 66% 26%))`;
  return made;
}

function tick() {
  const made = document.createElementNS(SVG, 'svg');
  made.setAttribute('viewBox', '0 0 24 24');
  made.setAttribute('class', 'tick');
  made.setAttribute('aria-hidden', 'true');
  made.append(Object.assign(document.createElementNS(SVG, 'path')));
  made.firstChild.setAttribute('d', 'm4 12.500 5 5L20 6.500');
  return made;
}

function use(id) {
  const made = document.createElementNS(SVG, 'svg');
  const reference = document.createElementNS(SVG, 'use');
  reference.setAttribute('href', `#${id}`);
  made.setAttribute('aria-hidden', 'true');
  made.append(reference);
  return made;
}
