// The playground: one question, kept in the address, and what the service answers to it.

import { addressOf, readAddress } from "./address.js";
import { findItems, fieldsOf, forgetItems, itemOf, lookUp, titleOf } from "./catalogue.js";
import { combobox } from "./combobox.js";
import { announce, button, make, redraw, ROOM, titled } from "./dom.js";
import { drawFilters } from "./filters.js";
import { drawHistory } from "./history.js";
import { drawLists } from "./lists.js";
import { count, counted } from "./numbers.js";
import { ask, hasKey, setKey } from "./service.js";
import { drawSettings } from "./settings.js";
import { troubleOf } from "./trouble.js";
import { forgetExplanations } from "./why.js";

const BEGINNINGS = 6; // items offered where nothing was chosen yet
const at = (id) => document.getElementById(id);

let about = null; // what can be asked here
let question = readAddress();
let lists = []; // the answers to it
let asking = null; // the controller of the calls under way

// The question

/** Change some of the question; the address follows, and what no longer fits is asked anew. */
function change(fields) {
  question = { ...question, ...fields };
  history.pushState(null, "", addressOf(question));
  if (fields.history) drawHistory(at("history"), question.history, changeHistory);
  drawAsked();
  answer();
}

const changeHistory = (items) => change({ history: items });
const add = (id) => changeHistory([...question.history, id]);
const clearFilters = () => {
  drawFilters(at("filters"), about.columns, {}, (filters) => change({ filters }));
  change({ filters: {} });
};

/** Open or close an explanation; the lists stay as they are. */
function explain(why) {
  question = { ...question, why };
  history.pushState(null, "", addressOf(question));
  draw();
}

function bodyFor(run) {
  const body = { history: question.history, k: question.k, variant: run, unknown_items: "skip" };
  if (Object.keys(question.filters).length) body.filters = question.filters;
  if (question.keep) body.exclude_history = false;
  return body;
}

// The answers

async function answer() {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  if (!question.history.length) {
    lists = [];
    await begin(signal);
    return;
  }
  at("lists").setAttribute("aria-busy", "true");
  const first = question.run ?? Object.keys(about.variants)[0];
  const runs = question.beside && question.beside !== first ? [first, question.beside] : [first];
  try {
    const found = await Promise.all(runs.map((run) => recommendations(run, signal)));
    if (found.some(({ problem }) => problem?.kind === "unauthorized")) {
      showDoor();
      return;
    }
    const version = found.find((list) => list.version)?.version ?? about.catalogue_version;
    if (version !== about.catalogue_version) {
      await load();
      await lookUp(question.history, signal);
      drawQuestion();
    }
    await lookUp(found.flatMap(({ items = [] }) => items.map((item) => item.item_id)), signal);
    if (signal.aborted) return;
    lists = found;
    draw();
    const heard = (list) => list.problem?.words ?? `${counted(list.items.length, "recommendation")} of ${list.run}`;
    announce(lists.map(heard).join("; "));
  } catch (problem) {
    if (problem.name !== "AbortError") show(troubleOf(problem, [button("Try again", answer)]));
  } finally {
    if (!signal.aborted) at("lists").setAttribute("aria-busy", "false");
  }
}

async function recommendations(run, signal) {
  try {
    const { answer: found, milliseconds } = await ask("v1/recommend", { body: bodyFor(run), signal });
    const { items, note, skipped, catalogue_version: version } = found;
    return { run, items, note, skipped, version, milliseconds };
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    return { run, problem };
  }
}

function draw() {
  const several = Object.keys(about.variants).length > 1;
  drawLists(at("lists"), question, lists, several, { add, explain, again: answer, clearFilters });
  const command = at("command");
  command.hidden = false;
  const body = JSON.stringify(bodyFor(lists[0].run)).replaceAll("'", "'\\''");
  const key = hasKey() ? " -H 'authorization: Bearer KEY'" : "";
  const address = new URL("v1/recommend", location.href.split("#")[0]);
  const json = "-H 'content-type: application/json'";
  command.querySelector("pre").textContent = `curl -s ${address}${key} ${json} \\\n  -d '${body}'`;
}

/** Nothing was chosen yet: say so, and offer a few items to begin with. */
async function begin(signal) {
  at("command").hidden = true;
  const words = make("p", {}, "Nothing to go by yet. Search for an item that the person has.");
  show(words);
  try {
    const popular = await findItems("", signal, BEGINNINGS);
    if (signal.aborted) return;
    const offers = popular.map((item) => button(titled(item.title), () => add(item.item_id)));
    const among = make("p", { class: "soft" }, "Or begin with one of these, which many people had in training:");
    show(words, among, make("div", { class: "offers" }, offers));
  } catch (problem) {
    if (problem.name !== "AbortError") show(words, troubleOf(problem, [button("Try again", answer)]));
  }
}

function show(...elements) {
  redraw(at("lists"), elements);
  at("lists").setAttribute("aria-busy", "false");
}

// The page

/** Learn what can be asked here; what was known of another version of the catalogue is forgotten. */
async function load() {
  about = (await ask("v1/about")).answer;
  forgetItems();
  forgetExplanations();
  const some = about.available < about.items ? `, ${count(about.available)} available` : "";
  const made = `catalogue version ${about.catalogue_version} · catalign ${about.version}`;
  at("about").textContent = `${counted(about.items, "item")}${some} · ${made}`;
}

function drawQuestion() {
  drawSettings(at("settings"), question, about, change);
  drawFilters(at("filters"), about.columns, question.filters, (filters) => change({ filters }));
  drawHistory(at("history"), question.history, changeHistory);
  drawAsked();
}

/** In a few words what stands in the settings, for when they are folded. */
function drawAsked() {
  const filters = Object.keys(question.filters).length;
  const runs = question.beside ? "2 runs" : null;
  const parts = [counted(question.k, "item"), runs, filters && counted(filters, "filter")];
  at("asked").textContent = parts.filter(Boolean).join(", ");
}

/** Show the question of the address and answer it. */
async function open() {
  at("trouble").replaceChildren();
  try {
    if (about === null) await load();
    await lookUp(question.history);
  } catch (problem) {
    if (problem.kind === "unauthorized") showDoor();
    else at("trouble").replaceChildren(troubleOf(problem, [button("Try again", open)]));
    return;
  }
  at("door").hidden = true;
  at("forget").hidden = !hasKey();
  at("shop").hidden = false;
  drawQuestion();
  await answer();
}

function showDoor() {
  if (hasKey()) at("door-said").textContent = "The service does not know this key. Is it whole?";
  setKey(null);
  at("shop").hidden = at("forget").hidden = true;
  at("door").hidden = false;
  at("key").value = "";
  at("key").focus();
}

at("door").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(at("key").value.trim());
  open();
});
at("forget").addEventListener("click", () => {
  setKey(null);
  location.reload();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment of the address is the question's
  at("answers").focus();
});
window.addEventListener("popstate", () => {
  question = readAddress();
  if (about !== null) open();
});
at("ask").open = ROOM.matches;
at("search").append(
  combobox({
    label: "Add an item by its title",
    find: async (text, signal) =>
      (await findItems(text, signal)).map((item) => ({ text: item.title, value: item.item_id, note: fieldsOf(item) })),
    choose: ({ value, text }) => {
      announce(`${text}: added`);
      add(value);
    },
    nothing: (text) => (text ? `No title holds “${text}”.` : "The catalogue is empty."),
  }),
);
open();
