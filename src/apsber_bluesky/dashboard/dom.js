// Small tools to build and keep elements. Text only ever becomes text: nothing here parses HTML.

export const $ = (id) => document.getElementById(id);

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") element.textContent = value;
    else if (key === "kind") element.dataset.kind = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

// Touches the page only when something is new, so that a screen reader stays quiet.
export function say(element, text) {
  const wanted = text === null || text === undefined ? "" : String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function mark(element, kind) {
  if (element.dataset.kind !== kind) element.dataset.kind = kind;
}

// Replaces the children when `value` differs from what they were made of.
const madeOf = new WeakMap();
export function fill(element, value, build) {
  const text = JSON.stringify(value);
  if (madeOf.get(element) === text) return;
  madeOf.set(element, text);
  element.replaceChildren(...build(value));
}

const SYMBOLS = { pass: "\u2713", warn: "\u25B2", fail: "\u2715" };
const WORDS = { pass: "Pass", warn: "Warning", fail: "Fail" };

export function verdict(kind) {
  const known = kind in SYMBOLS;
  const text = known ? `${SYMBOLS[kind]} ${WORDS[kind]}` : "\u2013";
  return make("span", { class: "verdict", kind: known ? kind : "none", text });
}

// The verdict over all numbers, as large as the number of a scan that runs.
export const judged = (kind) => (kind ? [make("span", { class: "note", text: "Quality" }), verdict(kind)] : []);

export function facts(list, pairs) {
  fill(list, pairs, () => pairs.map(([name, value, isText]) => make("div", {},
    make("dt", { text: name }), make("dd", { text: value, class: isText ? "text" : "" }))));
}
