// A text field with a list of suggestions: the combobox pattern of ARIA. The focus stays in the field; the arrows move
// through the list, Enter takes, Escape closes and then empties.

import { announce, delayed, make, titled } from "./dom.js";
import { counted } from "./numbers.js";

const PAUSE = 120; // milliseconds after the last key
let made = 0;

/**
 * label: of the field.
 * find: (text, signal) => promise of options { text, note, value }; note is an element or null.
 * choose: is called with the chosen option.
 * nothing: (text) => what to say when there are no options.
 * attributes: of the field.
 */
export function combobox({ label, find, choose, nothing, attributes = {} }) {
  const id = `choice-${++made}`;
  let options = [];
  let active = -1;
  let asking = null; // the controller of the search under way
  let takeFirst = false; // Enter was pressed before the answer came

  const field = make("input", {
    id, type: "text", role: "combobox", autocomplete: "off", autocapitalize: "off", spellcheck: "false",
    "aria-expanded": "false", "aria-controls": `${id}-list`, "aria-autocomplete": "list", ...attributes,
  });
  const list = make("ul", { id: `${id}-list`, role: "listbox", "aria-label": label, hidden: true });
  const said = make("p", { class: "said", hidden: true });

  function close() {
    asking?.abort();
    asking = null;
    options = [];
    takeFirst = false;
    list.hidden = said.hidden = true;
    list.replaceChildren();
    field.setAttribute("aria-expanded", "false");
    mark(-1);
  }

  function mark(number) {
    list.children[active]?.setAttribute("aria-selected", "false");
    active = number;
    const option = list.children[active];
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    if (option) field.setAttribute("aria-activedescendant", option.id);
    else field.removeAttribute("aria-activedescendant");
  }

  function take(number) {
    const option = options[number];
    field.value = "";
    close();
    choose(option);
  }

  function say(words) {
    said.textContent = words;
    said.hidden = false;
    announce(words);
  }

  function show(text) {
    list.replaceChildren(
      ...options.map((option, number) =>
        make(
          "li",
          { id: `${id}-${number}`, role: "option", "aria-selected": "false", onclick: () => take(number) },
          marked(option.text, text),
          option.note,
        ),
      ),
    );
    list.hidden = options.length === 0;
    said.hidden = true;
    field.setAttribute("aria-expanded", String(options.length > 0));
    mark(options.length && text ? 0 : -1);
    if (options.length) announce(`${counted(options.length, "suggestion")}`);
    else say(nothing(text));
  }

  async function search() {
    asking?.abort();
    const mine = (asking = new AbortController());
    const text = field.value.trim();
    try {
      const found = await find(text, mine.signal);
      if (asking !== mine) return;
      asking = null;
      options = found;
      show(text);
      if (takeFirst && options.length) take(0);
      takeFirst = false;
    } catch (problem) {
      if (problem.name === "AbortError") return;
      close();
      say(problem.words ?? String(problem));
    }
  }

  const searchSoon = delayed(() => asking !== null && search(), PAUSE);

  field.addEventListener("input", () => {
    asking?.abort();
    asking = new AbortController(); // a search is due: Enter waits for it, closing the list calls it off
    searchSoon();
  });
  field.addEventListener("click", () => options.length || search());
  field.addEventListener("blur", close);
  list.addEventListener("pointerdown", (event) => event.preventDefault()); // the focus stays in the field
  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step !== undefined) {
      event.preventDefault();
      if (!options.length) search();
      else if (active < 0) mark(step > 0 ? 0 : options.length - 1);
      else mark((active + step + options.length) % options.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (asking !== null) takeFirst = field.value.trim() !== "";
      else if (active >= 0) take(active);
    } else if (event.key === "Escape") {
      if (options.length || !said.hidden) close();
      else field.value = "";
    }
  });
  return make("div", { class: "combobox" }, make("label", { for: id }, label), field, list, said);
}

/** A text with what was searched for made visible in it. */
function marked(text, wanted) {
  const lower = text.toLowerCase();
  const start = wanted && lower.length === text.length ? lower.indexOf(wanted.toLowerCase()) : -1;
  if (start < 0) return titled(text);
  const end = start + wanted.length;
  return titled([text.slice(0, start), make("mark", {}, text.slice(start, end)), text.slice(end)]);
}
