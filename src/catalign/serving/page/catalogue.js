// Items by id, as the service told them; asked for once.

import { make } from "./dom.js";
import { ask } from "./service.js";

const AT_ONCE = 100; // ids in one call
const MOST_FIELDS = 6;
const LONGEST_FIELD = 60; // characters

const known = new Map();

/** The item of an id as far as it is known: { item_id, title, available, metadata }, null if there is none. */
export const itemOf = (id) => known.get(id);

export const titleOf = (id) => itemOf(id)?.title ?? id;

/** Forget all items: the catalogue has changed. */
export const forgetItems = () => known.clear();

export function remember(items) {
  for (const item of items) known.set(item.item_id, item);
}

/** Items whose title holds a text: one that is the text first, then as the service has them. */
export async function findItems(text, signal, limit = 20) {
  const query = [["query", text.slice(0, 200)], ["limit", limit]];
  const { answer } = await ask("v1/items", { query, signal });
  remember(answer.items);
  const exact = (item) => item.title.toLowerCase() === text.toLowerCase();
  return [...answer.items.filter(exact), ...answer.items.filter((item) => !exact(item))];
}

/** Make these ids known; those that the catalogue does not have become null. */
export async function lookUp(ids, signal) {
  const missing = [...new Set(ids)].filter((id) => known.get(id) === undefined);
  for (let start = 0; start < missing.length; start += AT_ONCE) {
    const part = missing.slice(start, start + AT_ONCE);
    const { answer } = await ask("v1/items", { query: part.map((id) => ["id", id]), signal });
    for (const id of part) known.set(id, null);
    remember(answer.items);
  }
}

/** What the catalogue says of an item beside its title, in a line; null if nothing. */
export function fieldsOf(item) {
  const fields = Object.entries(item?.metadata ?? {}).slice(0, MOST_FIELDS);
  if (!fields.length) return null;
  const shown = fields.map(([name, value]) => {
    const text = [value].flat().join(", ");
    const cut = text.length > LONGEST_FIELD ? `${text.slice(0, LONGEST_FIELD)}…` : text;
    return make("span", { class: "field" }, make("span", { class: "name" }, name), " ", make("bdi", {}, cut));
  });
  return make("span", { class: "fields" }, shown.flatMap((field) => [field, " "]));
}
