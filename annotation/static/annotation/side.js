/* The panel beside the task, by keys: the guideline (G), its other language (O), and "I have read
   what changed" (K); a question to the lead (Q); and what waits on the
   desk (I). Without this file every one of them is a summary, a link or a button to press. */

const work = document.getElementById("work");
let known = ""; // the version that was noted as read on this page

function keyOf(event) {
  if (event.key === "Process" || event.isComposing) {
    return (event.code.match(/^Key(.)$/) || [])[1]?.toLowerCase() ?? "";
  }
  return event.key.length === 1 ? event.key.toLowerCase() : "";
}

function guideline() {
  return document.querySelector("details.guideline");
}

function turnGuideline() {
  const shown = guideline();
  if (!shown) return;
  shown.open = !shown.open;
  const summary = shown.querySelector("summary");
  if (shown.open) {
    summary.scrollIntoView({ block: "nearest" });
    summary.focus({ preventScroll: true });
  } else {
    summary.blur();
  }
}

/* Sheets of one name close each other: opening the next one is turning the page. */
function turnSheet() {
  const shown = guideline();
  const sheets = [...(shown?.querySelectorAll(".sheet[name]") ?? [])];
  if (sheets.length < 2) return;
  shown.open = true;
  sheets[(sheets.findIndex((sheet) => sheet.open) + 1) % sheets.length].open = true;
}

function acknowledge() {
  document.getElementById("guideline-known")?.click();
}

function ask() {
  const popover = document.getElementById("question");
  if (popover && !popover.matches(":popover-open")) popover.showPopover();
}

const ACTS = {
  g: turnGuideline,
  o: turnSheet,
  k: acknowledge,
  q: ask,
  i: () => document.getElementById("desk")?.click(),
};

/* Ctrl+Enter asks, with Shift it puts the item aside too; once it is sent the window goes and its
   words with it. */
document.addEventListener("keydown", (event) => {
  const form = event.target.closest("#question form");
  if (!form || event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  form.querySelectorAll("button[name=then]")[event.shiftKey ? 1 : 0]?.click();
});

/* What is put aside leaves like a skip: the next comparison is painted at once. */
document.addEventListener("click", (event) => {
  const button = event.target.closest("#question button[value=aside]");
  if (!button) return;
  event.preventDefault();
  if (!button.form.reportValidity()) return;
  const leaving = document.querySelector("#question form.aside");
  leaving.elements.text.value = button.form.elements.text.value;
  leaving.requestSubmit();
});

document.body.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "asked" || !event.detail.target.querySelector("[data-asked]")) return;
  const popover = document.getElementById("question");
  popover.querySelector("textarea").value = "";
  popover.hidePopover();
});

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("[popover]:popover-open")) return;
  if (event.target.closest("textarea, input:not([type=radio], [type=checkbox], .cell), select")) return;
  const act = ACTS[keyOf(event)];
  if (!act) return;
  event.preventDefault();
  act();
});

/* A task that was fetched ahead may still bring news that have been read since. */
function putOldNewsAway() {
  const noted = work.querySelector("[data-read]");
  if (noted) known = noted.dataset.read;
  const news = document.getElementById("guideline-news");
  if (known && news?.dataset.version === known) news.remove();
}

new MutationObserver(putOldNewsAway).observe(work, { childList: true, subtree: true });
