// How many, what to leave out, and which runs.

import { delayed, make } from "./dom.js";
import { count } from "./numbers.js";

const PAUSE = 300; // milliseconds after the last key
const NONE = "";

/** Draw the settings of a question; `change` is called with the fields that change. */
export function drawSettings(container, question, about, change) {
  const typed = document.activeElement?.id === "k" ? document.activeElement.value : question.k; // not yet told
  container.replaceChildren(howMany(typed, about, change), leaveOut(question, change), ...runs(question, about, change));
}

function howMany(value, about, change) {
  const range = make("span", { id: "k-range", class: "soft" }, `1 to ${count(about.max_k)}`);
  const field = make("input", {
    id: "k", type: "number", min: 1, max: about.max_k, step: 1, value, inputmode: "numeric",
    "aria-describedby": "k-range",
  });
  const tell = delayed(() => {
    field.setAttribute("aria-invalid", String(!field.validity.valid || field.value === ""));
    if (field.getAttribute("aria-invalid") === "false") change({ k: field.valueAsNumber });
  }, PAUSE);
  field.addEventListener("input", tell);
  return make("p", { class: "setting" }, make("label", { for: "k" }, "How many"), field, range);
}

function leaveOut(question, change) {
  const box = make("input", { id: "keep", type: "checkbox", onchange: () => change({ keep: !box.checked }) });
  box.checked = !question.keep;
  return make("p", { class: "setting" }, box, make("label", { for: "keep" }, "Leave out what the person has"));
}

/** Two lists of names where there are several runs. A name that a link has and the service has not is shown as such. */
function runs(question, about, change) {
  const names = Object.keys(about.variants);
  if (names.length < 2 && !question.beside && (question.run ?? names[0]) === names[0]) return [];
  const select = (id, label, chosen, choices, onchange) => {
    const all = chosen !== NONE && !choices.includes(chosen) ? [...choices, chosen] : choices;
    const options = all.map((name) => make("option", { value: name, selected: name === chosen }, worded(name, names)));
    const field = make("select", { id, onchange: () => onchange(field.value) }, options);
    return make("p", { class: "setting" }, make("label", { for: id }, label), field);
  };
  return [
    select("run", "Run", question.run ?? names[0], names, (run) => change({ run: run === names[0] ? null : run })),
    select("beside", "Beside it", question.beside ?? NONE, [NONE, ...names], (name) => change({ beside: name || null })),
  ];
}

function worded(name, names) {
  if (name === NONE) return "nothing";
  return names.includes(name) ? name : `${name} (not in service)`;
}
