// What went wrong, in words and with what can be done about it.

import { make } from "./dom.js";

/** A problem as a notice; `remedies` are buttons. Anything that is no problem of the service is a fault of this page. */
export function troubleOf(problem, remedies = []) {
  const words = problem.words ?? `This page failed: ${problem.message}`;
  return make(
    "div",
    { class: "notice trouble", role: "alert" },
    make("p", {}, words),
    problem.details?.length ? make("ul", {}, problem.details.map((detail) => make("li", {}, detail))) : null,
    remedies.length ? make("p", { class: "remedies" }, remedies) : null,
  );
}
