// Numbers as people read them.

const percent = new Intl.NumberFormat("en", { style: "percent", maximumSignificantDigits: 3 });
const two = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
const whole = new Intl.NumberFormat("en");
const LARGEST = 1e6;

export const count = (number) => whole.format(number);

/** "1 item", "2 items". */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

export function probability(share) {
  return share > 0 && share < 1e-6 ? "<0.0001%" : percent.format(share);
}

export function milliseconds(time) {
  return time < 1000 ? `${Math.max(1, Math.round(time))} ms` : `${two.format(time / 1000)} s`;
}

/** By how much a difference of log-probabilities multiplies, whichever way: 3.4 for 1.22 and for -1.22. */
export function times(difference) {
  const factor = Math.exp(Math.abs(difference));
  return factor > LARGEST ? `over ${count(LARGEST)}×` : `${two.format(factor)}×`;
}

/** Whether a difference of log-probabilities would be shown as 1×. */
export const isNothing = (difference) => times(difference) === "1×";
