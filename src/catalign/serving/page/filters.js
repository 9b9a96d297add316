// Filters on the columns that the catalogue has: boxes to tick for a few values, a search for many, a range for numbers.

import { combobox } from "./combobox.js";
import { button, make, ROOM } from "./dom.js";
import { count } from "./numbers.js";

const FEW = 12; // values that are shown as boxes
const FEW_COLUMNS = 3; // columns that are open from the beginning, where there is room
const SUGGESTED = 20;

/** Draw a filter for every column; `change` is called with all conditions. */
export function drawFilters(container, columns, filters, change) {
  const conditions = { ...filters };
  const tell = (name, condition) => {
    if (condition === null) delete conditions[name];
    else conditions[name] = condition;
    clear.hidden = !Object.keys(conditions).length;
    change({ ...conditions });
  };
  const clear = button("Clear the filters", () => {
    drawFilters(container, columns, {}, change);
    container.querySelector("summary")?.focus();
    change({});
  }, { class: "quiet", hidden: !Object.keys(conditions).length });
  const open = ROOM.matches && columns.length <= FEW_COLUMNS;
  const drawn = columns.map((column) => filter(column, conditions[column.name] ?? null, open, tell));
  container.replaceChildren(...(columns.length ? [make("h3", {}, "Only items with"), ...drawn, clear] : []));
}

function filter(column, condition, open, tell) {
  const set = make("span", { class: "soft" });
  const said = (now) => {
    set.textContent = now === null ? "" : `: ${worded(now)}`;
  };
  const changed = (now) => {
    said(now);
    tell(column.name, now);
  };
  said(condition);
  const inside = column.kind === "number" ? range : column.distinct <= FEW ? boxes : search;
  return make(
    "details",
    { class: "filter", open: open || condition !== null },
    make("summary", {}, column.name, set),
    make("fieldset", {}, make("legend", { class: "unseen" }, column.name), inside(column, condition, changed)),
  );
}

function worded(condition) {
  if (Array.isArray(condition)) return condition.join(", ");
  const { min, max } = condition;
  if (max === undefined) return `from ${min}`;
  return min === undefined ? `up to ${max}` : `${min} to ${max}`;
}

/** A box for each value. */
function boxes(column, condition, changed) {
  const chosen = new Set(condition ?? []);
  return column.values.map(({ value, items }) => {
    const box = make("input", {
      type: "checkbox", checked: chosen.has(value),
      onchange: () => {
        if (box.checked) chosen.add(value);
        else chosen.delete(value);
        changed(chosen.size ? [...chosen] : null);
      },
    });
    return make("label", { class: "box" }, box, make("bdi", {}, String(value)), noteOf(items));
  });
}

/** A search in the values, and those that were chosen, each to be taken away again. */
function search(column, condition, changed) {
  const chosen = new Set(condition ?? []);
  const chips = make("ul", { class: "chips" });
  const draw = () => {
    const drawn = [...chosen].map((value) =>
      button([make("bdi", {}, String(value)), " ×"], () => {
        chosen.delete(value);
        draw();
        field.querySelector("input").focus();
        changed(chosen.size ? [...chosen] : null);
      }, { class: "chip", "aria-label": `Remove ${value}` }),
    );
    chips.replaceChildren(...drawn.map((chip) => make("li", {}, chip)));
    chips.hidden = !drawn.length;
  };
  const field = combobox({
    label: `Values of ${column.name}`,
    find: async (text) => {
      const lower = text.toLowerCase();
      const found = column.values.filter(({ value }) => value.toLowerCase().includes(lower) && !chosen.has(value));
      const options = found.slice(0, SUGGESTED).map(({ value, items }) => ({ text: value, value, note: noteOf(items) }));
      // The service lists the most common values only; any other can be named as it is.
      const listed = column.values.length === column.distinct || found.some(({ value }) => value === text);
      return text && !listed ? [...options, { text: `exactly “${text}”`, value: text, note: null }] : options;
    },
    choose: ({ value }) => {
      chosen.add(value);
      draw();
      changed([...chosen]);
    },
    nothing: (text) => (text ? `No item has “${text}”.` : "There are no more values."),
  });
  draw();
  return [chips, field];
}

const noteOf = (items) => make("span", { class: "soft" }, count(items));

/** From and to. */
function range(column, condition, changed) {
  const bound = (name, label, hint) =>
    make("label", { class: "bound" }, label, make("input", {
      type: "number", step: "any", inputmode: "decimal", placeholder: hint, value: condition?.[name], "data-bound": name,
      onchange: tellBounds,
    }));
  const fields = [bound("min", "from", column.min), bound("max", "to", column.max)];
  function tellBounds() {
    const now = {};
    for (const field of fields.map((label) => label.querySelector("input"))) {
      if (Number.isFinite(field.valueAsNumber)) now[field.dataset.bound] = field.valueAsNumber;
    }
    changed(Object.keys(now).length ? now : null);
  }
  return fields;
}
