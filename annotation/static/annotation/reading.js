/* Ways to read the answers, by keys: W as they were written, D what differs between two of them,
   Y side by side with scrolling in step. None of them touches what is submitted. */

const STEP = "concord-in-step";
const work = document.getElementById("work");
const INVISIBLE = /\t|[\u00a0\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]| {2,}| +(?=\n|$)|\n/g;

let hooks = {};
let anchor = null; // the answer that the others are compared with
let other = null; // the one that is compared with it now
let asked = 0;

/* current(): the answer that the keys are at; say(name, values): words of the form. */
export function start(given) {
  hooks = given;
}

/* A comparison has come onto the page: read it as it is meant to look. */
export function begin() {
  anchor = other = null;
  if (localStorage.getItem(STEP)) setInStep(true);
  veiledTexts().forEach((text) => (text.inert = true));
}

function options() {
  return [...work.querySelectorAll("form.answer .option")];
}

function press(name, isOn) {
  work.querySelector(`[data-tool=${name}]`)?.setAttribute("aria-pressed", isOn);
}

function isPressed(name) {
  return work.querySelector(`[data-tool=${name}]`)?.getAttribute("aria-pressed") === "true";
}

/* ---- V: what may upset stays veiled, from eyes and screen readers, until it is asked for ---- */

function veiledTexts() {
  return [...work.querySelectorAll(".veiled :is(.turn .prose, .option > .text)")];
}

export function unveil() {
  const texts = veiledTexts();
  texts.forEach((text) => (text.inert = false));
  work.querySelector(".veiled")?.classList.remove("veiled");
  if (texts.length) work.querySelector("h1")?.focus({ preventScroll: true });
}

/* Show something else in place of an answer's text; null brings the text back. */
function instead(option, shown) {
  option.querySelector(".instead")?.remove();
  option.querySelector(".prose").hidden = Boolean(shown);
  if (!shown) return;
  shown.classList.add("instead");
  option.querySelector(".prose").after(shown);
}

function putBack() {
  options().forEach((option) => instead(option, null));
  anchor = other = null;
  press("raw", false);
  press("diff", false);
}

/* ---- W ---- */

export function toggleRaw() {
  const isOn = !isPressed("raw");
  putBack();
  if (!isOn) return hooks.say("sayFormatted");
  options().forEach((option) => instead(option, written(rawOf(option))));
  press("raw", true);
  return hooks.say("sayWritten");
}

export function rawOf(option) {
  return option.querySelector("template.raw")?.content.textContent ?? "";
}

/* The text to the letter, with signs for what cannot be seen; the signs are not copied along. */
function written(text) {
  const shown = document.createElement("pre");
  let from = 0;
  for (const { 0: found, index } of text.matchAll(INVISIBLE)) {
    shown.append(text.slice(from, index), ...signsFor(found));
    from = index + found.length;
  }
  shown.append(text.slice(from));
  return shown;
}

function signsFor(found) {
  if (found === "\n") return [sign("↵"), "\n"];
  if (found === "\t") return [sign("→"), "\t"];
  if (found.startsWith(" ")) return [sign("·".repeat(found.length))];
  const code = found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  return [sign(`U+${code}`), found];
}

function sign(text) {
  const shown = document.createElement("span");
  shown.className = "sign";
  shown.setAttribute("aria-hidden", "true");
  shown.textContent = text;
  return shown;
}

/* ---- D ---- */

export function toggleDiff() {
  const isOn = !isPressed("diff");
  putBack();
  if (!isOn || options().length < 2) return undefined;
  anchor = hooks.current() ?? options()[0];
  press("diff", true);
  return compare();
}

/* The keys went to another answer: it is the one to compare now. */
export function follow() {
  if (isPressed("diff")) compare();
}

async function compare() {
  const all = options();
  const at = hooks.current() ?? anchor;
  const next = at !== anchor ? at : other ?? all[all.indexOf(anchor) + 1] ?? all[all.indexOf(anchor) - 1];
  if (next === other) return;
  const mine = (asked += 1);
  const pair = [anchor, next].map((option) => option.dataset.choice);
  const query = new URLSearchParams({ one: pair[0], other: pair[1] });
  const answer = await fetch(`${work.querySelector("form.answer").dataset.differences}?${query}`).catch(() => null);
  if (mine !== asked || !isPressed("diff")) return;
  if (!answer?.ok) {
    putBack();
    hooks.say("sayFailedToCompare");
    return;
  }
  const template = document.createElement("template");
  template.innerHTML = await answer.text();
  if (mine !== asked || !isPressed("diff")) return;
  all.forEach((option) => instead(option, null));
  other = next;
  for (const [index, option] of [anchor, other].entries()) {
    instead(option, template.content.querySelectorAll(".differences")[index].cloneNode(true));
  }
  hooks.say("sayCompared", { one: pair[0], other: pair[1] });
}

/* ---- Y ---- */

export function toggleInStep() {
  const isOn = !isPressed("step");
  if (isOn) localStorage.setItem(STEP, "1");
  else localStorage.removeItem(STEP);
  setInStep(isOn);
  hooks.say(isOn ? "sayInStep" : "sayOutOfStep");
  if (isOn) columns()[0]?.focus({ preventScroll: true });
  else document.activeElement?.blur();
}

function columns() {
  return [...work.querySelectorAll("form.answer .option > .text")];
}

function setInStep(isOn) {
  press("step", isOn);
  work.querySelector("form.answer .options")?.classList.toggle("in-step", isOn);
  columns().forEach((column) => {
    if (isOn) column.tabIndex = 0;
    else column.removeAttribute("tabindex");
  });
}

let leader = null; // the column that somebody scrolls; the others follow
let free;

function lead(column) {
  leader = column;
  clearTimeout(free);
  free = setTimeout(() => (leader = null), 150);
}

/* Each column stands at the same share of its own length. */
work.addEventListener("scroll", (event) => {
  const column = event.target;
  if (!column.matches?.(".in-step .text") || (leader && leader !== column)) return;
  lead(column);
  const share = column.scrollTop / Math.max(1, column.scrollHeight - column.clientHeight);
  columns().filter((one) => one !== column).forEach((one) => {
    one.scrollTop = share * (one.scrollHeight - one.clientHeight);
  });
}, true);

work.addEventListener("click", (event) => {
  if (event.target.closest("#unveil")) unveil();
  const tool = event.target.closest("[data-tool]")?.dataset.tool;
  const toggles = { raw: toggleRaw, diff: toggleDiff, step: toggleInStep };
  toggles[tool]?.();
});
