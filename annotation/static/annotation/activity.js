/* The heartbeat: a lease goes on while somebody has its comparison on the screen. */

import { post, token } from "./sending.js";

const work = document.getElementById("work");
let beat; // the timer of the next heartbeat

/* Call for each comparison that comes to stand on the page. */
export function watch(form) {
  clearInterval(beat);
  if (form?.dataset.renew) beat = setInterval(() => renew(form), 1000 * form.dataset.heartbeat);
}

async function renew(form) {
  if (document.hidden || !form.isConnected) return;
  const body = new URLSearchParams({ csrfmiddlewaretoken: token() });
  const answer = await post(form.dataset.renew, body).catch(() => null);
  const html = answer?.status === 200 ? await answer.text() : "";
  const lease = work.querySelector("#lease");
  if (html && lease && form.isConnected) lease.innerHTML = html;
}

document.addEventListener("visibilitychange", () => {
  const form = work.querySelector("form.answer[data-renew]");
  if (form) renew(form);
});
