/**
 * Controls for the parameters of an effect, built from their JSON Schema.
 *
 * Owns the elements and their values. Refuses to know effects, sessions and the network: the caller
 * gets all values after each change.
 */

/**
 * Fills `place` with a control for each parameter of `schema`, set to `values`.
 *
 * @param {HTMLElement} place emptied first
 * @param {object} schema an effect's `parameters`
 * @param {Record<string, unknown>} values a value for each parameter
 * @param {(values: Record<string, unknown>) => void} changed gets a fresh copy of all values
 * @param {string} prefix of the ids of the controls
 */
export function showParameters(place, schema, values, changed, prefix = 'parameter') {
  const current = structuredClone(values);
  const controls = Object.entries(schema?.properties ?? {}).map(([name, property]) => {
    const set = (value) => {
      current[name] = value;
      changed(structuredClone(current));
    };
    return controlFor(`${prefix}-${name}`, name, property, current[name] ?? property.default, set);
  });
  place.replaceChildren(...(controls.length ? controls : [element('p', { className: 'muted', textContent: 'Nothing to set here.' })]));
}

/** Returns a readable form of an identifier such as `yellow_ink`. */
export function readable(word) {
  const text = String(word).replaceAll('_', ' ');
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Returns an element with these properties and children. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function controlFor(id, name, property, value, set) {
  const about = { id, title: property.title ?? readable(name), description: property.description ?? '' };
  if (property.type === 'number' || property.type === 'integer') return slider(about, property, value, set);
  if (property.type === 'string' && property.enum) return choice(about, property.enum, value, set);
  if (property.type === 'boolean') return flag(about, value, set);
  if (property.type === 'object' && property.propertyNames?.enum) return weights(about, property, value, set);
  return element('p', { className: 'muted', textContent: `${about.title} can be set through the API only.` });
}

function slider({ id, title, description }, { minimum = 0, maximum = 1, type }, value, set) {
  const step = type === 'integer' ? 1 : stepFor(maximum - minimum);
  const shown = element('output', { htmlFor: id, textContent: numberText(value, step) });
  const input = element('input', { id, type: 'range', min: minimum, max: maximum, step });
  input.value = value;
  input.addEventListener('input', () => {
    shown.textContent = numberText(input.valueAsNumber, step);
    set(input.valueAsNumber);
  });
  return field(id, description, input, element('div', { className: 'heading' }, element('label', { htmlFor: id, textContent: title }), shown), input);
}

function choice({ id, title, description }, options, value, set) {
  const select = element('select', { id }, ...options.map((word) => new Option(readable(word), word)));
  select.value = value;
  select.addEventListener('change', () => set(select.value));
  return field(id, description, select, element('label', { htmlFor: id, textContent: title }), select);
}

function flag({ id, title, description }, value, set) {
  const input = element('input', { id, type: 'checkbox', checked: value });
  input.addEventListener('change', () => set(input.checked));
  return field(id, description, input, element('label', { className: 'flag', htmlFor: id }, input, title));
}

/**
 * Returns a list of words with a slider each, and a menu of the words that are not in the list yet.
 */
function weights({ id, title, description }, property, value, set) {
  const options = property.propertyNames.enum;
  const { minimum = 0, maximum = 1 } = property.additionalProperties ?? {};
  const chosen = new Map(Object.entries(value ?? {}));
  const rows = element('ul', { className: 'weights' });
  const menu = element('select', { id });
  const told = () => set(Object.fromEntries(chosen));

  const drawMenu = () => {
    const left = options.filter((word) => !chosen.has(word));
    menu.replaceChildren(new Option('Add one…', ''), ...left.map((word) => new Option(readable(word), word)));
    menu.disabled = !left.length;
  };
  const addRow = (word) => {
    const name = readable(word);
    const step = stepFor(maximum - minimum);
    const shown = element('output', { textContent: numberText(chosen.get(word), step) });
    const input = element('input', { type: 'range', min: minimum, max: maximum, step, ariaLabel: `Weight of ${name}` });
    input.value = chosen.get(word);
    input.addEventListener('input', () => {
      chosen.set(word, input.valueAsNumber);
      shown.textContent = numberText(input.valueAsNumber, step);
      told();
    });
    const remove = element('button', { type: 'button', className: 'quiet', textContent: '×', ariaLabel: `Remove ${name}` });
    const row = element('li', {}, element('span', { textContent: name }), input, shown, remove);
    remove.addEventListener('click', () => {
      chosen.delete(word);
      row.remove();
      drawMenu();
      menu.focus();
      told();
    });
    rows.append(row);
    return input;
  };

  for (const word of chosen.keys()) addRow(word);
  drawMenu();
  menu.addEventListener('change', () => {
    const word = menu.value;
    if (!word) return;
    chosen.set(word, (minimum + maximum) / 2);
    addRow(word).focus();
    drawMenu();
    told();
  });
  return field(id, description, menu, element('label', { htmlFor: id, textContent: title }), rows, menu);
}

/** Returns a control with its description, which screen readers read with `input`. */
function field(id, description, input, ...children) {
  const made = element('div', { className: 'field' }, ...children);
  if (description) {
    made.append(element('p', { id: `${id}-about`, className: 'muted', textContent: description }));
    input.setAttribute('aria-describedby', `${id}-about`);
  }
  return made;
}

/** Returns a round step size that divides the range into about a hundred steps. */
function stepFor(range) {
  return 10 ** Math.round(Math.log10((range || 1) / 100));
}

function numberText(value, step) {
  return Number(value).toFixed(Math.max(0, Math.ceil(-Math.log10(step))));
}
