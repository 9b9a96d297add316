// The items that the person has, in their order.

import { itemOf, titleOf } from "./catalogue.js";
import { announce, button, make, redraw, titled } from "./dom.js";

const GONE = () => make("span", { class: "fields warn" }, "not in the catalogue: left aside");

/** Draw the history; `change` is called with what becomes of it. */
export function drawHistory(container, history, change) {
  if (!history.length) {
    redraw(container, [make("p", { class: "soft" }, "Nothing yet.")]);
    return;
  }
  function move(place, to) {
    const moved = history.toSpliced(place, 1).toSpliced(to, 0, history[place]);
    announce(`${titleOf(history[place])}: now number ${to + 1} of ${history.length}`);
    change(moved);
    // The focus follows the item; at an end of the list only the other arrow is left.
    const [same, other] = to < place ? ["earlier", "later"] : ["later", "earlier"];
    const keys = [`${same}:${to}`, `${other}:${to}`].map((key) => container.querySelector(`[data-key="${key}"]`));
    keys.find((element) => element && !element.disabled)?.focus();
  }
  function remove(place) {
    announce(`${titleOf(history[place])}: removed`);
    change(history.toSpliced(place, 1));
    if (!container.contains(document.activeElement)) document.querySelector("#search input").focus();
  }
  const rows = history.map((id, place) => {
    const title = titleOf(id);
    const act = (kind, sign, action, disabled = false) =>
      button(sign, action, {
        class: "small", disabled, title: `Move ${kind}`, "aria-label": `Move ${title} ${kind}`,
        "data-key": `${kind}:${place}`,
      });
    return make(
      "li",
      {},
      make("div", { class: "what" }, titled(title), itemOf(id) === null ? GONE() : null),
      make(
        "div",
        { class: "acts" },
        act("earlier", "↑", () => move(place, place - 1), place === 0),
        act("later", "↓", () => move(place, place + 1), place === history.length - 1),
        button("×", () => remove(place), {
          class: "small", title: "Remove", "aria-label": `Remove ${title}`, "data-key": `remove:${place}`,
        }),
      ),
    );
  });
  redraw(
    container,
    [
      make("p", { class: "soft" }, "The oldest first. The last ones count: a run reads only so many."),
      make("ol", { class: "history" }, rows),
      button("Empty the list", () => {
        change([]);
        document.querySelector("#search input").focus();
      }, { class: "quiet" }),
    ],
    [`remove:${history.length - 1}`],
  );
}
