// Why an item was recommended: what each item of the history moved, and why this one instead of another.

import { findItems, lookUp, titleOf } from "./catalogue.js";
import { combobox } from "./combobox.js";
import { button, make, measured, titled, unseen } from "./dom.js";
import { counted, isNothing, milliseconds, probability, times } from "./numbers.js";
import { ask } from "./service.js";
import { troubleOf } from "./trouble.js";

const KEPT = 50;
const known = new Map(); // what was asked -> the answer

/** Forget all explanations: the catalogue has changed. */
export const forgetExplanations = () => known.clear();

/**
 * The explanation of an item in a list.
 *
 * question: what was asked.
 * list: the list that the item stands in: { run, items }.
 * contrast: is called with the id of an item to compare with, or null.
 */
export function explanation(question, list, item, contrast) {
  const { insteadOf } = question.why;
  const body = { history: question.history, item: item.item_id, variant: list.run, unknown_items: "skip" };
  if (insteadOf) body.instead_of = insteadOf;
  const panel = make("div", { class: "why", "aria-busy": "true" }, make("p", { class: "soft" }, "Asking…"));
  fill(panel, body, () => draw(list, item, insteadOf, contrast, question.history.length));
  return panel;
}

async function fill(panel, body, drawer) {
  const asked = JSON.stringify(body);
  try {
    if (!known.has(asked)) {
      const [explained] = await Promise.all([ask("v1/explain", { body }), lookUp(body.instead_of ? [body.instead_of] : [])]);
      if (known.size >= KEPT) known.clear();
      known.set(asked, explained);
    }
    panel.replaceChildren(...drawer()(known.get(asked)));
  } catch (problem) {
    panel.replaceChildren(troubleOf(problem, [button("Try again", () => fill(panel, body, drawer))]));
  }
  panel.setAttribute("aria-busy", "false");
}

function draw(list, item, insteadOf, contrast, given) {
  return ({ answer, milliseconds: time }) => {
    const moves = answer.contributions.map((part) => ({ ...part, by: insteadOf ? part.contrast : part.moved }));
    const measure = "Each measured by leaving that item out; together they need not add up.";
    const shown = moves.length < given ? `The run reads the last ${counted(moves.length, "item")} of ${given}.` : "";
    return [
      make("p", {}, ...(insteadOf ? marginOf(answer) : strongest(answer, moves))),
      make("ol", { class: "moves" }, moves.map((part) => bar(part, moves, insteadOf))),
      make("p", { class: "soft" }, `${measure} ${shown} ${milliseconds(time)}`),
      otherItem(list, item, insteadOf, contrast),
    ];
  };
}

function marginOf({ title, instead_of: other, margin }) {
  const than = margin > 0 ? "as likely as" : "less likely than";
  const said = isNothing(margin) ? "is as likely as" : `is ${times(margin)} ${than}`;
  return [titled(title), ` ${said} `, titled(titleOf(other)), ". What each item of the history speaks for:"];
}

function strongest({ title, log_probability: score }, moves) {
  const most = moves.reduce((best, part) => (Math.abs(part.by) > Math.abs(best.by) ? part : best), moves[0]);
  const begin = [titled(title), ` has a probability of ${probability(Math.exp(score))}. `];
  if (isNothing(most.by)) return [...begin, "No item of the history moved it."];
  return [...begin, titled(most.title), ` moved it most: with it in the history this is ${likely(most.by)} than without.`];
}

const likely = (by) => `${times(by)} ${by > 0 ? "likelier" : "less likely"}`;

/** One item of the history and a bar to the right (it raised the probability) or to the left. */
function bar(part, moves, insteadOf) {
  const longest = Math.max(...moves.map(({ by }) => Math.abs(by)), Math.LN2);
  const way = isNothing(part.by) ? "none" : part.by > 0 ? "up" : "down";
  const side = { up: "for this one", down: "for the other" };
  const moved = insteadOf ? `${times(part.by)} ${side[way]}` : likely(part.by);
  const words = way === "none" ? (insteadOf ? "for neither" : "nothing") : moved;
  return make(
    "li",
    {},
    make("span", { class: "what" }, titled(part.title)),
    measured(make("span", { class: `bar ${way}`, "aria-hidden": "true" }), "length", Math.abs(part.by) / longest),
    make("span", { class: "words" }, words),
  );
}

/** Another item to compare with: those of the list first, then any of the catalogue. */
function otherItem(list, item, insteadOf, contrast) {
  const others = list.items.filter(({ item_id: id, title }) => id !== item.item_id && title !== item.title);
  const field = combobox({
    label: insteadOf ? "Compare with another one" : "Why not another one?",
    find: async (text, signal) => {
      const found = text ? await findItems(text, signal) : others;
      return found
        .filter(({ title }) => title !== item.title)
        .map(({ item_id: value, title }) => ({ text: title, value, note: null }));
    },
    choose: ({ value }) => contrast(value),
    nothing: (text) => (text ? `No other title holds “${text}”.` : "The list has no other item."),
    attributes: { "data-key": `instead:${list.run}:${item.item_id}` },
  });
  const alone = insteadOf && button(["Why this one alone", unseen(`, ${item.title}`)], () => contrast(null), {
    class: "quiet", "data-key": `alone:${list.run}:${item.item_id}`,
  });
  return make("div", { class: "other" }, field, alone);
}
