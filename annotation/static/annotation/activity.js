/* The heartbeat, and time at work.

   A lease goes on while its comparison is on the screen. At work is whoever moves, types, clicks
   or scrolls with the page in front: the time up to a minute after each such sign counts, the rest
   is idle. The server believes none of it beyond its own clock. */

import { post, token } from "./sending.js";

const work = document.getElementById("work");
const IDLE_AFTER_MS = 60000;
const SIGNS = ["keydown", "input", "pointermove", "pointerdown", "wheel", "scroll", "touchmove", "focusin"];

let watched = null; // the form whose comparison is on the page
let beat; // the timer of its heartbeat
let activeMs = 0; // at work on it, up to countedTo
let countedTo = 0;
let creditTo = 0; // a minute after the last sign

/* Call for each comparison that comes to stand on the page. */
export function watch(form) {
  if (watched && watched !== form) watched.dataset.active = measure(); // it may come back
  watched = form?.dataset.renew ? form : null;
  activeMs = 1000 * Number(watched?.dataset.active ?? 0);
  countedTo = performance.now();
  if (!document.hidden) creditTo = countedTo + IDLE_AFTER_MS;
  clearInterval(beat);
  if (watched) beat = setInterval(() => !document.hidden && report(), 1000 * watched.dataset.heartbeat);
}

/* Seconds at work on what is on the page, up to now. */
export function measure() {
  const now = performance.now();
  activeMs += Math.max(0, Math.min(now, creditTo) - countedTo);
  countedTo = now;
  return (activeMs / 1000).toFixed(1);
}

for (const sign of SIGNS) {
  document.addEventListener(sign, () => {
    if (document.hidden) return;
    measure();
    creditTo = countedTo + IDLE_AFTER_MS;
  }, { capture: true, passive: true });
}

document.addEventListener("visibilitychange", () => {
  measure();
  creditTo = document.hidden ? countedTo : countedTo + IDLE_AFTER_MS;
  if (watched) report();
});

async function report() {
  const form = watched;
  if (!form.isConnected) return;
  const body = new URLSearchParams({ csrfmiddlewaretoken: token(), active_seconds: measure() });
  const answer = await post(form.dataset.renew, body).catch(() => null);
  const html = answer?.status === 200 ? await answer.text() : "";
  const lease = work.querySelector("#lease");
  if (html && lease && form.isConnected) lease.innerHTML = html;
}
