// Elements out of data. Text becomes text nodes and never markup; the service's content security policy holds us to it.

/**
 * An element. Attributes whose value is a function are listeners (`onclick`), true is an empty attribute, false, null
 * and undefined are none; children that are null or false are left out.
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function button(text, onclick, attributes = {}) {
  return make("button", { type: "button", onclick, ...attributes }, text);
}

/** A title of the catalogue: whatever its direction and script, it does not disturb what stands beside it. */
export function titled(title) {
  return make("bdi", { class: "title" }, title);
}

/** Words for those who hear the page. */
export function unseen(text) {
  return make("span", { class: "unseen" }, text);
}

/** Give an element a number that its style reads, such as the length of a bar from 0 to 1. */
export function measured(element, name, number) {
  element.style.setProperty(`--${name}`, String(number));
  return element;
}

/**
 * Put other children into a container. If the focus was in it, it goes to the element with the same `data-key`, or to
 * the first of `instead` that can have it.
 */
export function redraw(container, children, instead = []) {
  const focused = container.contains(document.activeElement) ? document.activeElement : null;
  const key = focused?.closest("[data-key]")?.dataset.key;
  container.replaceChildren(...children);
  if (focused === null || focused === container) return;
  const places = [key, ...instead].map((name) => name && container.querySelector(`[data-key="${CSS.escape(name)}"]`));
  const place = places.find((element) => element && !element.disabled);
  (place ?? container.closest("[tabindex]"))?.focus({ preventScroll: true });
}

/** Whether there is room for two columns; on a phone what is rarely changed begins folded. */
export const ROOM = window.matchMedia("(min-width: 56rem)");

/** Say something to those who hear the page. */
export function announce(text) {
  document.getElementById("said").textContent = text;
}

/** Call `action` when nothing has asked for it for so many milliseconds. */
export function delayed(action, milliseconds) {
  let timer = 0;
  return (...parts) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...parts), milliseconds);
  };
}
