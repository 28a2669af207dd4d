/** Helpers for DOM elements. They never parse markup, so text that users wrote stays text. */

/**
 * An element of the page, by id.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function $(id) {
  return /** @type {T} */ (document.getElementById(id));
}

/**
 * A new element.
 * @param {string} tag
 * @param {string} classes
 * @param {...(Node | string)} children
 */
export function element(tag, classes, ...children) {
  const made = document.createElement(tag);
  made.className = classes;
  made.append(...children);
  return made;
}

/** @param {string} label @param {() => void} press */
export function button(label, press) {
  const made = element('button', '', label);
  made.addEventListener('click', press);
  return made;
}

/**
 * Shows a text in an element. An empty text hides the element.
 * @param {HTMLElement} element
 * @param {string} text
 */
export function show(element, text) {
  element.textContent = text;
  element.hidden = text === '';
}

/**
 * Shows the first letter of a name, on a colour that depends on the name.
 * @param {HTMLElement} avatar
 * @param {string} name
 */
export function paint(avatar, name) {
  const sum = [...name].reduce((sum, letter) => (sum * 31 + (letter.codePointAt(0) ?? 0)) % 997, 7);
  avatar.className = `avatar hue-${sum % 8}`;
  avatar.textContent = ([...name][0] ?? '?').toUpperCase();
  return avatar;
}

/** @param {string} iso */
export function clock(iso) {
  return new Date(iso).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
}

/** The time if it is today, otherwise the date. @param {string} iso */
export function when(iso) {
  const date = new Date(iso);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? clock(iso) : date.toLocaleDateString([], { day: 'numeric', month: 'short' });
}
