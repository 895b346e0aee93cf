/* Labeling by keys alone. The form works without this file; the file only presses its controls.

   A pair: 1, 2, T, B and C choose, the same key again or Enter submits.
   A list: arrows move between answers, digits give places (equal digits tie), Enter submits.
   Words come from the form's data attributes, translated on the server. */

const work = document.getElementById("work");
const says = document.getElementById("says");
let form = null;
let cells = []; // place inputs of a list, axis by axis
let at = 0; // the cell that the next digit goes to
let axis = 0; // the axis that the next choice goes to
let silence; // the timer that takes words away again
const SAID_FOR_MS = 4000;

document.documentElement.classList.add("js");

function say(text) {
  clearTimeout(silence);
  says.textContent = text;
  silence = setTimeout(() => (says.textContent = ""), SAID_FOR_MS);
}

function words(name, values = {}) {
  return (form.dataset[name] || "").replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}

function setUp() {
  form = work.querySelector("form.answer");
  cells = form ? [...form.querySelectorAll(".place input")] : [];
  axis = 0;
  at = 0;
  if (cells.length) showPlaces();
  showAxis();
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
  if (input.checked && !cells.length && fieldsets().length === 1) return submit();
  input.checked = true;
  putAside(input.dataset.axis);
  say(words("sayChosen", { choice: input.dataset.name }));
  const open = fieldsets().findIndex((field) => !field.querySelector("input:checked"));
  if (open >= 0) axis = open;
  showAxis();
}

/* ---- places ---- */

function showPlaces() {
  cells.forEach((cell, index) => cell.classList.toggle("current", index === at));
  form.querySelectorAll(".option").forEach((option) => {
    const mine = [...option.querySelectorAll(".place input")];
    option.classList.toggle("current", mine.includes(cells[at]));
    option.classList.toggle("placed", mine.every((cell) => cell.value));
  });
  const order = form.querySelector(".order");
  if (order) order.textContent = orderOf(cells.filter((cell) => cell.dataset.axis === currentAxis()));
}

function currentAxis() {
  return cells[at].dataset.axis;
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

function goTo(index) {
  at = Math.max(0, Math.min(cells.length - 1, index));
  axis = Number(currentAxis());
  showAxis();
  showPlaces();
  cells[at].focus({ preventScroll: true });
  cells[at].closest(".option").scrollIntoView({ block: "nearest" });
}

function place(digit) {
  const cell = cells[at];
  if (digit < 1 || digit > Number(cell.max)) return say(words("sayRange"));
  clearChoice(cell.dataset.axis);
  cell.value = digit;
  say(words("sayPlaced", { letter: cell.dataset.letter, place: digit }));
  goTo(at + 1);
}

function putAside(axisOfChoice) {
  cells.filter((cell) => cell.dataset.axis === axisOfChoice && cell.value).forEach((cell) => {
    cell.dataset.aside = cell.value;
    cell.value = "";
  });
  if (cells.length) showPlaces();
}

/* A place is given after all: the choice goes, and what it put aside comes back. */
function clearChoice(axisOfCell) {
  const checked = fieldsets()[Number(axisOfCell)].querySelector("input:checked");
  if (!checked) return;
  checked.checked = false;
  cells.filter((cell) => cell.dataset.axis === axisOfCell && cell.dataset.aside).forEach((cell) => {
    cell.value = cell.value || cell.dataset.aside;
    delete cell.dataset.aside;
  });
}

/* ---- submit ---- */

function missing() {
  return fieldsets().some((field, index) => {
    const row = cells.filter((cell) => cell.dataset.axis === String(index));
    return !field.querySelector("input:checked") && row.filter((cell) => cell.value).length < 2;
  });
}

function submit() {
  form.requestSubmit();
}

document.addEventListener("submit", (event) => {
  if (event.target !== form || !missing()) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  say(words("sayMissing"));
}, true);

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

function writeNote() {
  const note = form.querySelector(".note");
  note.open = true;
  note.querySelector("textarea").focus();
}

function act(key, event) {
  if (key === "?") return open("help");
  if (!form) return undefined;
  if (key === "s") return open("skip");
  if (key === "n") return writeNote();
  if (cells.length) {
    if (event.shiftKey && /^[a-i]$/.test(key)) {
      const cell = cells.findIndex(
        (c) => c.dataset.letter === key.toUpperCase() && c.dataset.axis === currentAxis());
      return cell >= 0 ? goTo(cell) : undefined;
    }
    if (/^[0-9]$/.test(key)) return place(Number(key));
    if (key === "ArrowDown" || key === "ArrowRight") return goTo(at + 1);
    if (key === "ArrowUp" || key === "ArrowLeft") return goTo(at - 1);
    if (key === "Backspace" || key === "Delete") {
      clearChoice(currentAxis());
      if (!cells[at].value) goTo(at - 1);
      cells[at].value = "";
      return showPlaces();
    }
  }
  if (key === "Enter") return submit();
  const input = choiceFor(key);
  return input ? choose(input) : undefined;
}

const KEYS = /^([0-9a-i]|[tsn?]|Enter|Backspace|Delete|Arrow\w+)$/;

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
  if (/^(Arrow|Backspace|Delete)/.test(key) && !cells.length) return; // the page scrolls
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
  if (!option || String(getSelection())) return;
  const input = choiceFor(option.dataset.choice);
  if (input && !input.checked) choose(input);
});

work.addEventListener("change", (event) => {
  if (event.target.matches("input[data-key]")) {
    axis = fieldsets().indexOf(event.target.closest("fieldset"));
    putAside(event.target.dataset.axis);
    say(words("sayChosen", { choice: event.target.dataset.name }));
  }
});

work.addEventListener("input", (event) => {
  if (!cells.includes(event.target)) return;
  at = cells.indexOf(event.target);
  clearChoice(event.target.dataset.axis);
  showPlaces();
});

work.addEventListener("focusin", (event) => {
  if (!cells.includes(event.target) || cells[at] === event.target) return;
  at = cells.indexOf(event.target);
  showPlaces();
});

/* ---- what htmx brings ---- */

document.body.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target !== work) return;
  setUp();
  say(work.querySelector("[data-say]")?.dataset.say ?? "");
  work.querySelector("h1")?.focus({ preventScroll: true });
});

for (const failure of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
  document.body.addEventListener(failure, (event) => {
    if (form && event.detail.elt === form) say(words("sayFailed"));
  });
}

setUp();
