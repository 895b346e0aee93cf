/* Labeling by keys alone. The form works without this file; the file only presses its controls.

   A pair: the digits of the scale, T, B and C choose, the same key again or Enter submits.
   A list: arrows move between answers, digits give places (equal digits tie), Enter submits.
   Ratings and the line of what is good enough are cells too: R and L lead there, digits fill them,
   Escape leads back. Words come from the form's data attributes, translated on the server. */

import { measure, watch } from "./activity.js";
import * as dragging from "./dragging.js";
import { dropDraft, saveDraft, takeUpDraft } from "./drafts.js";
import * as reading from "./reading.js";
import { say } from "./saying.js";
import { prefetchSoon, send, settled, start } from "./sending.js";

const work = document.getElementById("work");
let form = null;
let cells = []; // inputs for digits: places, ratings, the lines, in the order of the page
let at = -1; // the cell that the next digit goes to; -1: digits choose
let axis = 0; // the axis that the next choice goes to

document.documentElement.classList.add("js");

function words(name, values = {}) {
  return (form.dataset[name] || "").replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}

function setUp() {
  form = work.querySelector("form.answer");
  reading.begin();
  cells = form ? [...form.querySelectorAll("input.cell")] : [];
  axis = 0;
  at = isList() ? 0 : -1;
  if (cells.length) showCells();
  showAxis();
}

function isList() {
  return cells.some((cell) => cell.dataset.cell === "place");
}

function placesOf(axisOfCells) {
  return cells.filter((c) => c.dataset.cell === "place" && c.dataset.axis === String(axisOfCells));
}

/* ---- choices: a pair's all, a list's B and C ---- */

function fieldsets() {
  return [...form.querySelectorAll("fieldset.axis")];
}

function showAxis() {
  if (!form || fieldsets().length < 2) return;
  fieldsets().forEach((field, index) => field.classList.toggle("current", index === axis));
}

function choiceFor(key) {
  const field = fieldsets()[axis];
  return field && [...field.querySelectorAll("input[data-key]")].find((i) => i.dataset.key === key);
}

/* In a list B and C are letters of answers too: there a second press submits nothing, and the
   places that the choice puts aside come back with the next digit. */
function choose(input) {
  if (input.checked && !isList() && fieldsets().length === 1) return submit();
  input.checked = true;
  putAside(input.dataset.axis);
  sayChosen(input);
  const open = fieldsets().findIndex((field) => !field.querySelector("input:checked"));
  if (open >= 0) axis = open;
  showAxis();
}

/* What was chosen; that Enter submits only where it would, else what is still to be rated. */
function sayChosen(input) {
  const what = missing();
  const chosen = words(what ? "sayTaken" : "sayChosen", { choice: input.dataset.name });
  say(what && what !== "sayMissing" ? `${chosen} ${words(what)}` : chosen);
}

/* ---- cells ---- */

function showCells() {
  cells.forEach((cell, index) => cell.classList.toggle("current", index === at));
  form.querySelectorAll(".option").forEach((option) => {
    const mine = [...option.querySelectorAll("input[data-cell=place]")];
    option.classList.toggle("current", at >= 0 && option.contains(cells[at]));
    option.classList.toggle("placed", mine.length > 0 && mine.every((cell) => cell.value));
  });
  reading.follow();
  const order = form.querySelector(".order");
  if (!order || !isList()) return;
  order.textContent = orderOf(placesOf(axis));
  dragging.drawStrip(form.querySelector(".strip"), placesOf(axis));
}

/* "B > A = C", what the digits mean. */
function orderOf(row) {
  const places = new Map();
  row.filter((cell) => cell.value).forEach((cell) => {
    places.set(cell.value, [...(places.get(cell.value) || []), cell.dataset.letter]);
  });
  return [...places.keys()]
    .sort((a, b) => a - b)
    .map((place) => places.get(place).join(" = "))
    .join(" > ");
}

/* To the cell, or past the last one of a pair back to choosing. */
function goTo(index) {
  if (index >= cells.length && !isList()) return leaveCells();
  at = Math.max(0, Math.min(cells.length - 1, index));
  if (cells[at].dataset.axis) axis = Number(cells[at].dataset.axis);
  showAxis();
  showCells();
  cells[at].focus({ preventScroll: true });
  cells[at].closest(".option, .line").scrollIntoView({ block: "nearest" });
  return undefined;
}

function leaveCells() {
  at = isList() ? 0 : -1;
  document.activeElement?.blur();
  showCells();
}

/* The next cell of a kind that is still empty, else the first of them. */
function goToKind(kind) {
  const places = cells.map((cell, index) => [cell, index]).filter(([c]) => c.dataset.cell === kind);
  const [, index] = places.find(([cell]) => !cell.value) ?? places[0] ?? [];
  return index === undefined ? undefined : goTo(index);
}

function fill(digit) {
  const cell = cells[at];
  const { letter, name } = cell.dataset;
  if (digit < Number(cell.min) || digit > Number(cell.max)) {
    return say(words("sayBetween", { low: cell.min, high: cell.max }));
  }
  if (cell.dataset.cell === "place") clearChoice(cell.dataset.axis);
  cell.value = digit;
  const said = { place: "sayPlaced", rating: "sayRated", line: "sayLine" }[cell.dataset.cell];
  say(words(said, { letter, name, place: digit, value: digit }));
  return goTo(at + 1);
}

/* Groups of letters, best first, from a drag: the same places that digits give. */
function arrange(groups) {
  clearChoice(axis);
  placesOf(axis).forEach((cell) => {
    const index = groups.findIndex((letters) => letters.includes(cell.dataset.letter));
    cell.value = index < 0 ? "" : index + 1;
    delete cell.dataset.aside;
  });
  showCells();
  saveDraft(form);
  say(orderOf(placesOf(axis)));
}

function putAside(axisOfChoice) {
  placesOf(axisOfChoice).filter((cell) => cell.value).forEach((cell) => {
    cell.dataset.aside = cell.value;
    cell.value = "";
  });
  if (cells.length) showCells();
}

/* A place is given after all: the choice goes, and what it put aside comes back. */
function clearChoice(axisOfCell) {
  const checked = fieldsets()[Number(axisOfCell)].querySelector("input:checked");
  if (!checked) return;
  checked.checked = false;
  placesOf(axisOfCell).filter((cell) => cell.dataset.aside).forEach((cell) => {
    cell.value = cell.value || cell.dataset.aside;
    delete cell.dataset.aside;
  });
}

/* ---- submit ---- */

function missing() {
  const unanswered = fieldsets().some((field, index) => {
    const placed = placesOf(index).filter((cell) => cell.value);
    return !field.querySelector("input[type=radio]:checked") && placed.length < 2;
  });
  if (unanswered) return "sayMissing";
  const partly = fieldsets().some((field, index) => {
    const row = placesOf(index);
    return row.some((cell) => cell.value) && row.some((cell) => !cell.value);
  });
  if (partly && form.dataset.sayWhole) return "sayWhole";
  const unrated = cells.some((cell) => cell.dataset.cell === "rating" && !cell.value);
  return unrated ? "sayUnrated" : "";
}

function submit() {
  form.requestSubmit();
}

document.addEventListener("submit", (event) => {
  if (!work.contains(event.target)) return;
  const what = event.target === form && missing();
  const goesOn = event.target.matches("[data-goes-on]");
  if (what || goesOn) event.preventDefault();
  if (what) say(words(what));
  else if (goesOn) send(event.target);
});

/* ---- keys ---- */

/* With a Chinese input method on, the key is "Process" and only its place on the keyboard tells. */
function letterOf(event) {
  if (event.key === "Process" || event.isComposing) {
    return (event.code.match(/^(?:Key|Digit|Numpad)(.)$/) || [])[1]?.toLowerCase() ?? "";
  }
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
}

function open(id) {
  const popover = document.getElementById(id);
  if (!popover || popover.matches(":popover-open")) return;
  popover.showPopover();
}

/* Open a folded field and write in it. */
function write(name) {
  const field = form.querySelector(`textarea[name=${name}]`);
  if (!field) return;
  field.closest("details").open = true;
  if (name === "ideal" && !field.value) field.value = bestSoFar();
  field.focus();
}

/* The text to begin from: the answer that is in front, where one is. */
function bestSoFar() {
  const chosen = form.querySelector("input[data-side]:checked")?.dataset.side;
  const first = placesOf(0).filter((cell) => cell.value).sort((a, b) => a.value - b.value)[0];
  const letter = chosen || first?.dataset.letter;
  const option = form.querySelector(letter ? `.option-${letter}` : ".option");
  return reading.rawOf(option);
}

function goToFlags() {
  const option = form.querySelector(".option.current") ?? form.querySelector(".option");
  option.querySelector(".flags input")?.focus();
}

/* Back to the last answer, once it has arrived. */
async function undo() {
  await settled();
  document.getElementById("undo")?.click();
}

function act(key, event) {
  if (key === "?") return open("help");
  if (key === "u") return undo();
  if (!form) return undefined;
  if (key === "s") return open("skip");
  if (key === "n") return write("note");
  if (key === "e") return write("ideal");
  if (key === "r") return goToKind("rating");
  if (key === "l") return goToKind("line");
  if (key === "f") return goToFlags();
  if (key === "v") return reading.unveil();
  if (key === "w") return reading.toggleRaw();
  if (key === "d" && !event.shiftKey) return reading.toggleDiff();
  if (key === "y") return reading.toggleInStep();
  if (isList() && event.shiftKey && /^[a-i]$/.test(key)) {
    const cell = placesOf(axis).find((c) => c.dataset.letter === key.toUpperCase());
    return cell ? goTo(cells.indexOf(cell)) : undefined;
  }
  if (at >= 0) {
    if (/^[0-9]$/.test(key)) return fill(Number(key));
    if (key === "ArrowDown" || key === "ArrowRight") return goTo(at + 1);
    if (key === "ArrowUp" || key === "ArrowLeft") return goTo(at - 1);
    if (key === "Escape") return leaveCells();
    if (key === "Backspace" || key === "Delete") {
      if (cells[at].dataset.cell === "place") clearChoice(cells[at].dataset.axis);
      if (!cells[at].value) goTo(at - 1);
      cells[at].value = "";
      return showCells();
    }
  }
  if (key === "Enter") return submit();
  const input = choiceFor(key);
  return input ? choose(input) : undefined;
}

const KEYS = /^([0-9a-i]|[tsnrlefuvwy?]|Enter|Escape|Backspace|Delete|Arrow\w+)$/;

/* In the skip window digits choose a reason. */
document.addEventListener("keydown", (event) => {
  const skip = document.getElementById("skip");
  if (!skip?.matches(":popover-open") || event.target.name === "other") return;
  const reason = [...skip.querySelectorAll("input[name=reason]")][Number(event.key) - 1];
  if (!reason) return;
  event.preventDefault();
  reason.checked = true;
  reason.focus();
});

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("[popover]:popover-open")) return;
  const target = event.target;
  if (target.tagName === "TEXTAREA") {
    if (event.key === "Escape") target.blur();
    return;
  }
  const key = letterOf(event);
  if (key === "Enter" && target.closest("button, a, summary")) return;
  if (!KEYS.test(key)) return;
  if (/^(Arrow|Backspace|Delete|Escape)/.test(key) && at < 0) return; // the page scrolls
  event.preventDefault();
  act(key, event);
});

document.addEventListener("keydown", (event) => {
  const isNote = event.target.tagName === "TEXTAREA" && event.target.form === form;
  if (isNote && event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
});

/* ---- mouse ---- */

work.addEventListener("click", (event) => {
  const option = event.target.closest(".options.pair .option");
  if (!option || event.target.closest("footer") || String(getSelection())) return;
  const sides = fieldsets()[axis].querySelectorAll(`input[data-side="${option.dataset.choice}"]`);
  if (sides.length === 1 && !sides[0].checked) choose(sides[0]); // a graded choice needs its button
});

work.addEventListener("change", (event) => {
  if (event.target.matches("input[data-key]")) {
    axis = fieldsets().indexOf(event.target.closest("fieldset"));
    putAside(event.target.dataset.axis);
    sayChosen(event.target);
  }
});

work.addEventListener("input", (event) => {
  if (!cells.includes(event.target)) return;
  at = cells.indexOf(event.target);
  if (event.target.dataset.cell === "place") clearChoice(event.target.dataset.axis);
  showCells();
});

work.addEventListener("focusin", (event) => {
  if (!cells.includes(event.target) || cells[at] === event.target) return;
  at = cells.indexOf(event.target);
  showCells();
});

work.addEventListener("focusout", (event) => {
  if (!isList() && cells.includes(event.target) && !cells.includes(event.relatedTarget)) {
    at = -1; // of two answers digits choose again
    showCells();
  }
});

/* ---- drafts, and what the server brings ---- */

for (const kind of ["input", "change", "keyup", "click"]) {
  document.addEventListener(kind, () => form && saveDraft(form));
}

/* A comparison stands on the page: begin with it. */
function begin() {
  setUp();
  const isRefused = work.querySelector(".message.error");
  const isDraft = !isRefused && takeUpDraft(form);
  if (isDraft && cells.length) showCells();
  say(work.querySelector("[data-say]")?.dataset.say ?? (isDraft ? words("sayDraft") : ""));
  work.querySelector("h1")?.focus({ preventScroll: true });
  watch(form);
  prefetchSoon();
}

document.body.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target === work) begin();
});

dragging.start(arrange);
reading.start({
  current: () => form.querySelector(".option.current"),
  say: (name, values) => say(words(name, values)),
});
start({
  shown: begin,
  told: () => say(work.querySelector("[data-say]")?.dataset.say ?? ""),
  sent: (answered) => dropDraft(answered),
  failed: () => say(words("sayFailed")),
  more: (body) => body.set("active_seconds", measure()),
});
begin();
