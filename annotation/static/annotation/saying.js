/* What happened, said for some seconds: below the links to other pages where these are in sight, at
   the window's top where they aren't. */

const says = document.getElementById("says");
const above = document.querySelector(".topbar");
const SAID_FOR_MS = 4000;
const GAP = 8; // px
let silence; // the timer that takes words away again

export function say(text) {
  clearTimeout(silence);
  says.style.top = `${Math.max(above?.getBoundingClientRect().bottom ?? 0, 0) + GAP}px`;
  says.textContent = text;
  silence = setTimeout(() => (says.textContent = ""), SAID_FOR_MS);
}
