/* Ranking with mouse or finger, as an addition to the digits: a chip per answer in the bar.

   Dropped between two, an answer goes there; onto another, it ties with it; onto the tray, it is
   not ranked. What is dragged are the same places that digits fill. For eyes alone: the fields
   and the order that is read out say the same. */

let groups = []; // letters by place, best first
let loose = []; // letters without a place
let drag = null; // {chip, x, y, over}
let arranged = () => {};

/* arrange(groups): give the answers these places. */
export function start(arrange) {
  arranged = arrange;
}

/* Draw the strip anew; cells: the places of one axis. */
export function drawStrip(strip, cells) {
  if (!strip) return;
  const places = new Map();
  cells.filter((cell) => cell.value).forEach((cell) => {
    places.set(cell.value, [...(places.get(cell.value) ?? []), cell.dataset.letter]);
  });
  groups = [...places.keys()].sort((a, b) => a - b).map((place) => places.get(place));
  loose = cells.filter((cell) => !cell.value).map((cell) => cell.dataset.letter);
  const drawn = groups.flatMap((letters, index) => [
    box("gap", index),
    box("group", index, letters.map(chip)),
  ]);
  strip.replaceChildren(...drawn, box("gap last", groups.length), box("tray", -1, loose.map(chip)));
}

function box(name, index, children = []) {
  const made = document.createElement("span");
  made.className = name;
  made.dataset.at = index;
  made.append(...children);
  return made;
}

function chip(letter) {
  const made = document.createElement("span");
  made.className = "chip";
  made.dataset.letter = letter;
  made.textContent = letter;
  return made;
}

function dropped(letter, over) {
  const at = Number(over.dataset.at);
  const kept = groups.map((letters) => letters.filter((one) => one !== letter));
  if (over.matches(".group") && !kept[at].includes(letter)) kept[at].push(letter);
  if (over.matches(".gap")) kept.splice(at, 0, [letter]);
  arranged(kept.filter((letters) => letters.length));
}

document.addEventListener("pointerdown", (event) => {
  const held = event.target.closest?.(".strip .chip");
  if (!held || event.button) return;
  event.preventDefault();
  held.setPointerCapture(event.pointerId);
  held.classList.add("dragged");
  drag = { chip: held, x: event.clientX, y: event.clientY, over: null };
});

document.addEventListener("pointermove", (event) => {
  if (!drag) return;
  drag.chip.style.translate = `${event.clientX - drag.x}px ${event.clientY - drag.y}px`;
  const under = document.elementFromPoint(event.clientX, event.clientY);
  const over = under?.closest(".strip .gap, .strip .group, .strip .tray") ?? null;
  if (over === drag.over) return;
  drag.over?.classList.remove("over");
  over?.classList.add("over");
  drag.over = over;
});

function letGo(isDropped) {
  if (!drag) return;
  const { chip: held, over } = drag;
  drag = null;
  held.classList.remove("dragged");
  held.style.translate = "";
  over?.classList.remove("over");
  if (isDropped && over) dropped(held.dataset.letter, over);
}

document.addEventListener("pointerup", () => letGo(true));
document.addEventListener("pointercancel", () => letGo(false));
document.addEventListener("keydown", (event) => event.key === "Escape" && letGo(false));
