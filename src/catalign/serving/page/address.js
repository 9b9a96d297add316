// What is asked, kept in the fragment of the address: a link shares it, "back" takes a step back, and since browsers
// do not send fragments no server's log has it.

const MOST_ITEMS = 100;
export const DEFAULT_K = 10;

/**
 * The question of an address.
 *
 * history: item ids, the oldest first.        k: how many items.
 * keep: also recommend what the person has.   filters: column to a list of values or { min, max }.
 * run, beside: names of runs, or null.        why: null or { item, run, insteadOf }, the explanation that is open.
 */
export function readAddress(fragment = location.hash) {
  const said = new URLSearchParams(fragment.replace(/^#/, ""));
  const item = said.get("why");
  return {
    history: said.getAll("item").filter(Boolean).slice(-MOST_ITEMS),
    k: Number.parseInt(said.get("k"), 10) || DEFAULT_K,
    keep: said.get("keep") === "1",
    filters: readFilters(said.get("filters")),
    run: said.get("run") || null,
    beside: said.get("beside") || null,
    why: item ? { item, run: said.get("why-run") || null, insteadOf: said.get("instead-of") || null } : null,
  };
}

/** The fragment of a question; what is as usual is left out. */
export function addressOf(question) {
  const said = new URLSearchParams();
  for (const item of question.history) said.append("item", item);
  if (question.k !== DEFAULT_K) said.set("k", question.k);
  if (question.keep) said.set("keep", "1");
  if (Object.keys(question.filters).length) said.set("filters", JSON.stringify(question.filters));
  if (question.run) said.set("run", question.run);
  if (question.beside) said.set("beside", question.beside);
  if (question.why) {
    said.set("why", question.why.item);
    if (question.why.run) said.set("why-run", question.why.run);
    if (question.why.insteadOf) said.set("instead-of", question.why.insteadOf);
  }
  return `#${said}`;
}

/** Filters out of text that anybody may have written: lists of values and ranges of numbers, all else is dropped. */
function readFilters(text) {
  let told;
  try {
    told = JSON.parse(text ?? "{}");
  } catch {
    return {};
  }
  if (told === null || typeof told !== "object" || Array.isArray(told)) return {};
  const filters = {};
  for (const [name, condition] of Object.entries(told)) {
    if (Array.isArray(condition)) {
      const values = condition.filter((value) => ["string", "boolean", "number"].includes(typeof value));
      if (values.length) filters[name] = values;
    } else if (condition !== null && typeof condition === "object") {
      const bounds = Object.entries(condition).filter(
        ([bound, value]) => ["min", "max"].includes(bound) && Number.isFinite(value),
      );
      if (bounds.length) filters[name] = Object.fromEntries(bounds);
    }
  }
  return filters;
}
