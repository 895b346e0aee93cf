/* The chat by keys, and the answers as they are written.

   The row on the server is what counts. The stream only shows text while it comes; when it ends, or
   can't be had, the page asks for the row. Words come from data attributes, translated there. */

import { say } from "./saying.js";

const chat = document.getElementById("chat");
const POLL_MS = 2000;
let source = null; // the open stream
let poll; // the timer that asks for the row where there is no stream

document.documentElement.classList.add("js");

function words(name, values = {}) {
  return (chat?.dataset[name] || "").replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}

/* ---- the stream ---- */

function hear() {
  source?.close();
  clearInterval(poll);
  const box = document.getElementById("stream");
  if (!box) return;
  let begun = 0;
  source = new EventSource(box.dataset.stream);
  source.addEventListener("begin", () => {
    box.querySelectorAll(".streamed").forEach((place) => (place.textContent = ""));
    begun += 1;
    say(words(begun === 1 ? "sayWriting" : "sayAgain"));
  });
  source.addEventListener("piece", (event) => {
    const { place, text } = JSON.parse(event.data);
    box.querySelector(`[data-place="${place}"]`).append(text);
  });
  source.addEventListener("end", () => {
    source.close();
    look(box);
    poll = setInterval(() => look(box), POLL_MS); // should that one request fail
  });
  source.addEventListener("lost", () => fallBack(box));
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) fallBack(box); // else it comes again by itself
  });
}

function fallBack(box) {
  source.close();
  document.getElementById("waiting").textContent = words("sayLost");
  clearInterval(poll);
  poll = setInterval(() => look(box), POLL_MS);
}

/* The row as it stands: 204 while nothing has changed. */
function look(box) {
  htmx.ajax("GET", box.dataset.here, { target: chat, swap: "innerHTML" });
}

/* ---- choosing ---- */

const form = () => chat?.querySelector("form.choose");
const fieldsets = () => [...form().querySelectorAll("fieldset.axis:not(.go-on)")];
let axis = 0;

function choose(input) {
  if (input.checked && fieldsets().length === 1) return submit().click();
  input.checked = true;
  say(words("sayChosen", { choice: input.dataset.name }));
  const open = fieldsets().findIndex((field) => !field.querySelector("input:checked"));
  if (open >= 0) axis = open;
  return undefined;
}

const submit = () => form().querySelector(".submit");

function goOnFrom(input) {
  input.checked = true;
  say(words("sayFrom", { place: input.value }));
}

/* The answer that the conversation would go on from as the form stands. */
function frontPlace() {
  const on = form().querySelector("input[name=on]:checked");
  const sides = new Set(fieldsets().map((field) => field.querySelector("input:checked")?.dataset.side));
  return on?.value || (sides.size === 1 ? [...sides][0] : "") || "";
}

function write(name) {
  const field = form().querySelector(`textarea[name=${name}]`);
  if (!field) return;
  field.closest("details").open = true;
  fill(field.closest("details"));  // the event of its opening comes later, perhaps behind a letter
  field.focus();
}

/* However the field was opened, it begins with the answer that is in front. */
document.addEventListener("toggle", (event) => {
  if (event.target.matches?.("details") && event.target.open) fill(event.target);
}, true);

function fill(details) {
  const field = details.querySelector("textarea");
  if (!details.matches(".edit") || field.value) return;
  const option = form().querySelector(`.option-${frontPlace() || 1}`);
  field.value = option.querySelector("template.raw").content.textContent;
}

function missing(event) {
  if (fieldsets().some((field) => !field.querySelector("input:checked"))) return "sayMissing";
  const cells = [...form().querySelectorAll("input.cell")];
  if (cells.some((cell) => !cell.value)) return "sayUnrated";
  const ends = event.submitter?.name === "end";
  const edited = form().querySelector("[name=edited]").value.trim();
  return frontPlace() || edited || ends ? "" : "sayWhere";
}

document.addEventListener("submit", (event) => {
  const what = event.target === form() && missing(event);
  if (!what) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  say(words(what));
}, true);

/* ---- keys ---- */

/* With a Chinese input method on, the key is "Process" and only its place on the keyboard tells. */
function letterOf(event) {
  if (event.key === "Process" || event.isComposing) {
    return (event.code.match(/^(?:Key|Digit|Numpad)(.)$/) || [])[1]?.toLowerCase() ?? "";
  }
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
}

function act(key, event) {
  if (key === "?") return document.getElementById("help")?.showPopover();
  if (form()) {
    if (key === "n") return write("note");
    if (key === "e") return write("edited");
    if (key === "r") return form().querySelector("input.cell")?.focus();
    if (key === "f") return form().querySelector(".flags input")?.focus();
    if (key === "Enter") {
      // a click, not requestSubmit: htmx takes the value of a button that was clicked alone
      return (event.shiftKey ? form().querySelector(".and-end") : submit()).click();
    }
    const arrow = form().querySelector(`[data-arrow="${key}"]`);
    if (arrow) return goOnFrom(arrow);
    const input = fieldsets()[axis]?.querySelector(`input[data-key="${key}"]`);
    if (input) return choose(input);
  }
  return chat?.querySelector(`button[data-key="${key}"], a[data-key="${key}"]`)?.click();
}

const KEYS = /^([0-9]|[tbcnerfx?]|Enter|Arrow(Left|Right))$/;

document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (target.tagName === "TEXTAREA") return typing(event, target);
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return undefined;
  if (document.querySelector("[popover]:popover-open")) return undefined;
  if (target.matches("input.cell, input[type=checkbox], select")) {
    if (event.key === "Escape") target.blur();
    if (event.key !== "Enter") return undefined;
  }
  const key = letterOf(event);
  if (key === "Enter" && target.closest("button, a, summary")) return undefined;
  if (!KEYS.test(key) || !chat) return undefined;
  event.preventDefault();
  return act(key, event);
});

/* In the composer Enter sends; in a field of the choice Ctrl+Enter does, and Escape leaves it. */
function typing(event, field) {
  if (event.isComposing || event.keyCode === 229) return;
  const isComposer = field.form.matches(".composer");
  if (event.key === "Escape") field.blur();
  if (event.key !== "Enter") return;
  if (isComposer ? !event.shiftKey : event.ctrlKey || event.metaKey) {
    event.preventDefault();
    field.form.requestSubmit(field.form.querySelector(".submit") ?? undefined);
  }
}

/* ---- mouse ---- */

chat?.addEventListener("click", (event) => {
  const option = event.target.closest(".choose .option");
  if (!option || event.target.closest("footer") || String(getSelection())) return;
  const sides = fieldsets()[axis].querySelectorAll(`input[data-side="${option.dataset.choice}"]`);
  if (sides.length === 1 && !sides[0].checked) choose(sides[0]);
});

/* ---- drafts: a message half written survives a reload ---- */

const DRAFT = "concord-chat-";

function takeUpDraft() {
  const composer = document.querySelector("form.composer[data-draft]");
  const field = composer?.querySelector("textarea");
  if (!field || field.value) return;
  field.value = localStorage.getItem(DRAFT + composer.dataset.draft) ?? "";
}

document.addEventListener("input", (event) => {
  const composer = event.target.closest?.("form.composer[data-draft]");
  if (composer && event.target.tagName === "TEXTAREA") {
    localStorage.setItem(DRAFT + composer.dataset.draft, event.target.value);
  }
});

document.addEventListener("submit", (event) => {
  const { draft } = event.target.dataset;
  if (draft) localStorage.removeItem(DRAFT + draft);
});

/* ---- what htmx brings ---- */

document.body.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target !== chat) return;
  axis = 0;
  hear();
  takeUpDraft();
  if (form()) say(words("sayReady"));
  const composer = chat.querySelector(".composer textarea");
  (composer ?? chat.querySelector("h1")).focus({ preventScroll: true });
  (form() ?? composer ?? document.getElementById("stream"))?.scrollIntoView({ block: "nearest" });
});

for (const failure of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
  document.body.addEventListener(failure, (event) => {
    if (event.detail.elt.matches?.("form")) say(words("sayFailed"));
  });
}

hear();
takeUpDraft();
