// The recommendations of one run, or of two side by side with what moved.

import { fieldsOf, itemOf } from "./catalogue.js";
import { button, make, measured, redraw, titled, unseen } from "./dom.js";
import { counted, milliseconds, probability } from "./numbers.js";
import { troubleOf } from "./trouble.js";
import { explanation } from "./why.js";

const SKIPPED = "Left aside, because the catalogue does not have them";

/**
 * Draw lists of recommendations.
 *
 * lists: one or two of { run, items, note, skipped, milliseconds } or { run, problem }.
 * acts: { add(id), explain(why or null), again(), clearFilters() }.
 */
export function drawLists(container, question, lists, named, acts) {
  const place = ({ items = [] }) => new Map(items.map((item, number) => [item.item_id, number + 1]));
  const places = lists.map(place);
  const largest = Math.max(...lists.flatMap(({ items = [] }) => items.map((item) => item.probability)), Number.MIN_VALUE);
  const comparing = lists.length > 1 && lists.every((list) => list.items?.length);
  const drawn = lists.map((list, number) => {
    const marks = comparing ? { run: lists[1 - number].run, places: places[1 - number], arrows: number === 1 } : null;
    return drawList(question, list, named || lists.length > 1, { marks, largest }, acts);
  });
  redraw(container, [
    comparing ? make("p", { class: "lead" }, difference(lists, places)) : null,
    paired(make("div", { class: `lists of-${lists.length}` }, drawn)),
  ].filter(Boolean), question.why ? [`why:${question.why.run}:${question.why.item}`] : []);
}

/** What the mouse or the focus is on is made visible in the other list too. */
function paired(both) {
  const show = ({ target }) => {
    const id = target.closest("[data-item]")?.dataset.item;
    for (const row of both.querySelectorAll("[data-item]")) row.classList.toggle("same", row.dataset.item === id);
  };
  if (both.children.length > 1) for (const event of ["pointerover", "focusin"]) both.addEventListener(event, show);
  return both;
}

function difference([first, second], [before, after]) {
  const shared = [...after.keys()].filter((id) => before.has(id));
  const both = shared.map((id) => before.get(id) - after.get(id));
  const moved = (test) => both.filter(test).length;
  const most = Math.max(first.items.length, second.items.length);
  if (moved((by) => by === 0) === most) return `Both runs give the same ${counted(most, "item")} in the same order.`;
  const parts = [
    `${moved((by) => by > 0)} higher`, `${moved((by) => by < 0)} lower`, `${moved((by) => by === 0)} at the same place`,
  ];
  return `${both.length} of ${counted(most, "item")} are in both lists. In ${second.run} they stand: ${parts.join(", ")}.`;
}

function drawList(question, list, named, scale, acts) {
  const heading = named ? make("h3", {}, list.run) : null;
  if (list.problem) {
    const remedies = [button("Try again", acts.again)];
    if (Object.keys(question.filters).length) remedies.push(button("Clear the filters", acts.clearFilters));
    return make("section", { class: "list" }, heading, troubleOf(list.problem, remedies));
  }
  const said = [counted(list.items.length, "item"), milliseconds(list.milliseconds)].join(" in ");
  const rows = list.items.map((item, number) => row(question, list, item, number + 1, scale, acts));
  return make(
    "section",
    { class: "list", "aria-label": list.run },
    heading,
    make("p", { class: "soft status" }, said),
    list.skipped.length ? make("p", { class: "notice" }, `${SKIPPED}: ${list.skipped.join(", ")}.`) : null,
    list.note ? noteOf(question, list, acts) : null,
    rows.length ? make("ol", { class: "results" }, rows) : null,
  );
}

/** Why there are fewer than asked for. */
function noteOf(question, list, acts) {
  const words = list.note[0].toUpperCase() + list.note.slice(1);
  const filtered = list.items.length === 0 && Object.keys(question.filters).length > 0;
  return make(
    "div",
    { class: "notice" },
    make("p", {}, `${words}.`),
    filtered ? make("p", { class: "remedies" }, button("Clear the filters", acts.clearFilters)) : null,
  );
}

function row(question, list, item, rank, { marks, largest }, acts) {
  const id = `why-${list.run}-${rank}`;
  const { why } = question;
  const open = why?.item === item.item_id && (why.run ?? list.run) === list.run;
  const explain = (insteadOf = null) => acts.explain({ item: item.item_id, run: list.run, insteadOf });
  return make(
    "li",
    { "data-item": item.item_id, class: open ? "open" : null },
    make(
      "div",
      { class: "row" },
      make("span", { class: "rank", "aria-hidden": "true" }, String(rank)),
      make("div", { class: "what" }, titled(item.title), marks && mark(item, rank, marks), fieldsOf(itemOf(item.item_id))),
      make("span", { class: "probability" }, unseen("probability "), probability(item.probability)),
      make(
        "div",
        { class: "below" },
        measured(make("span", { class: "share", "aria-hidden": "true" }), "length", item.probability / largest),
        make(
          "div",
          { class: "acts" },
          button(["Why?", unseen(` ${item.title}`)], () => (open ? acts.explain(null) : explain()), {
            "aria-expanded": String(open), "aria-controls": open ? id : null,
            "data-key": `why:${list.run}:${item.item_id}`,
          }),
          button(["Add", unseen(` ${item.title} to what the person has`)], () => acts.add(item.item_id), {
            "data-key": `add:${list.run}:${rank}`,
          }),
        ),
      ),
    ),
    open ? make("div", { id }, explanation(question, list, item, explain)) : null,
  );
}

/** Where the item stands in the other list. */
function mark(item, rank, { run, places, arrows }) {
  const there = places.get(item.item_id);
  if (there === undefined) {
    return make("span", { class: "mark only" }, "only here", unseen(`, not among the first ${places.size} of ${run}`));
  }
  if (!arrows) return null;
  const by = there - rank;
  if (by === 0) return make("span", { class: "mark" }, "=", unseen(` the same place as in ${run}`));
  const [sign, word] = by > 0 ? ["▲", "higher"] : ["▼", "lower"];
  const words = unseen(` ${counted(Math.abs(by), "place")} ${word} than in ${run}`);
  const looks = { class: `mark ${by > 0 ? "up" : "down"}`, title: `number ${there} in ${run}` };
  return make("span", looks, `${sign} ${Math.abs(by)}`, words);
}
