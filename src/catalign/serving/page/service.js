// Calls to the service that this page came from, and its errors in words.

let key = null; // in memory alone: gone when the page is

export const setKey = (text) => (key = text || null);
export const hasKey = () => key !== null;

/** What went wrong: `kind` is the last part of the problem's type (RFC 9457). */
export class Problem extends Error {
  constructor(kind, words, { details = [], suggestions = [] } = {}) {
    super(words);
    Object.assign(this, { kind, words, details, suggestions });
  }
}

/**
 * Ask the service.
 *
 * path: such as "v1/recommend", relative to this page, so that a prefix before it does no harm.
 * body: what is posted; without it the call is a GET with `query`, pairs of name and value.
 * Returns the answer and the milliseconds it took; throws a Problem, or an AbortError if `signal` ends it.
 */
export async function ask(path, { body, query = [], signal } = {}) {
  const headers = {};
  if (key !== null) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const asked = {
    method: body === undefined ? "GET" : "POST",
    body: body && JSON.stringify(body),
    cache: "no-store",
    credentials: "same-origin",
    headers,
    signal,
  };
  const search = query.length ? `?${new URLSearchParams(query)}` : "";
  const started = performance.now();
  let response, text;
  try {
    response = await fetch(path + search, asked);
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("unreachable", "The service cannot be reached. It may have stopped, or the network is gone.");
  }
  const milliseconds = performance.now() - started;
  let answer = null;
  try {
    answer = JSON.parse(text);
  } catch {
    // Not ours: something in front of the service answered. What follows says so.
  }
  if (response.ok && answer !== null) return { answer, milliseconds };
  throw problemOf(response, answer);
}

const WORDS = {
  unauthorized: () => (hasKey() ? "The service does not know this key." : "The service wants a key."),
  busy: (wait) => `The service is busy: too many requests are waiting. It asks to come back in ${wait} s.`,
  timeout: () => "The model took too long to answer.",
  "shutting-down": () => "The service is shutting down.",
  internal: () => "The service failed. Its log says why.",
};

function problemOf(response, body) {
  const kind = typeof body?.type === "string" ? body.type.split(":").at(-1) : "unknown";
  const wait = response.headers.get("Retry-After") ?? "a few";
  const unexplained = `The service answered with status ${response.status} and did not say why.`;
  const words = WORDS[kind]?.(wait) ?? sentence(body?.detail) ?? unexplained;
  const details = (body?.errors ?? []).map((fault) => `${fault.pointer.slice(1)}: ${fault.detail}`);
  return new Problem(kind, words, { details, suggestions: body?.suggestions ?? [] });
}

/** A detail as a sentence: a capital at the beginning, a full stop at the end. */
function sentence(text) {
  if (typeof text !== "string" || text === "") return null;
  const begun = text[0].toUpperCase() + text.slice(1);
  return /[.?!)]$/.test(begun) ? begun : `${begun}.`;
}
