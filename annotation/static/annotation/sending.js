/* Answers leave in the background; the next comparison is painted at the key that submits.

   While one comparison is read, the next is fetched and made ready. Submitting shows it at once
   and sends the answer meanwhile. One answer is on its way at a time. If it is refused, or cannot
   be sent, the labeler is led back to it with all that was filled in, and what was painted waits
   as it was left. The server says whether what was painted is what comes next; if not, its own
   page replaces it. */

const work = document.getElementById("work");
const TIMEOUT_MS = 20000;
const PREFETCH_AFTER_MS = 300;
const KEEPALIVE_CHARACTERS = 60000; // browsers refuse to outlive a page with more
const MARGIN_MS = 5000;

let next = null; // {nodes, lease, until}: a comparison that is ready to be painted
let underway = null; // {form, done}: the answer on its way
let asked = 0; // counts prefetches, so that one that was overtaken is dropped
let hooks = {};

/* What the page does when work is shown(), the server told() it something, an answer was
   sent(form) or failed(), and what more(body) it measures and sends along. */
export function start(given) {
  hooks = given;
}

/* Resolves once no answer is on its way. */
export async function settled() {
  await underway?.done;
}

/* Send an answer or a skip, and show what is next. */
export async function send(sent) {
  if (underway?.form === sent) return;
  await settled();
  if (!sent.isConnected) return; // the one before was refused: its page stands here again
  const painted = takeNext();
  const request = post(sent.action, bodyOf(sent, painted));
  const before = painted ? show(painted.nodes) : [];
  underway = { form: sent, done: settle(sent, request, painted, before) };
  await underway.done;
  underway = null;
  prefetchSoon();
}

/* A form's fields posted as htmx would; more(body) adds what the page measures. */
export function post(url, body) {
  const text = String(body);
  return fetch(url, {
    method: "POST",
    body,
    headers: { "HX-Request": "true", "HX-Current-URL": location.href },
    keepalive: text.length < KEEPALIVE_CHARACTERS,
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
}

export function token() {
  return work.querySelector("[name=csrfmiddlewaretoken]")?.value ?? "";
}

function bodyOf(sent, painted) {
  const body = new URLSearchParams(new FormData(sent));
  if (painted) body.set("painted", painted.lease);
  hooks.more(body);
  return body;
}

async function settle(sent, request, painted, before) {
  let answer, html;
  try {
    answer = await request;
    html = await answer.text();
  } catch {
    return leadBack(painted, before);
  }
  const door = answer.headers.get("HX-Redirect");
  if (door) return location.assign(door);
  if (answer.status === 422) return leadBack(painted, before, parsed(html));
  if (!answer.ok) return leadBack(painted, before);
  hooks.sent(sent);
  const fragment = parsed(html);
  if (!fragment.querySelector("[data-painted]")) return void show([...fragment.childNodes]);
  fragment.querySelectorAll("[id]").forEach((fresh) => {
    document.getElementById(fresh.id)?.replaceWith(fresh);
  });
  return hooks.told();
}

/* To the comparison whose answer did not arrive: as the server words it, or as it was left. */
function leadBack(painted, before, refused) {
  const back = refused ? [...refused.childNodes] : before;
  const left = back.length ? show(back) : [];
  if (painted) setNext({ ...painted, nodes: left });
  if (!refused) hooks.failed();
}

function parsed(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

/* Put nodes in place of the work and give back those that stood there. What hx-preserve marks,
   such as an opened guideline, stays the element that it is. */
function show(nodes) {
  const before = [...work.childNodes];
  const fresh = document.createDocumentFragment();
  fresh.append(...nodes);
  fresh.querySelectorAll("[hx-preserve]").forEach((place) => {
    const kept = document.getElementById(place.id);
    if (!kept) return;
    kept.replaceWith(kept.cloneNode(true));
    place.replaceWith(kept);
  });
  work.replaceChildren(fresh);
  htmx.process(work);
  scrollTo(0, 0);
  hooks.shown();
  return before;
}

/* ---- the next one ---- */

export function prefetchSoon() {
  const mine = (asked += 1);
  setTimeout(() => mine === asked && prefetch(mine), next ? until(next) : PREFETCH_AFTER_MS);
}

/* Whether one is ready can be read from the page: data-next names its lease. */
function setNext(ready) {
  next = ready;
  if (next) work.dataset.next = next.lease;
  else delete work.dataset.next;
}

function until(ready) {
  return Math.max(PREFETCH_AFTER_MS, ready.until - performance.now());
}

async function prefetch(mine) {
  const form = work.querySelector("form.answer");
  if (!form?.dataset.prefetch || underway || document.hidden) return;
  const body = new URLSearchParams({ csrfmiddlewaretoken: token() });
  const html = await post(form.dataset.prefetch, body)
    .then((answer) => (answer.status === 200 ? answer.text() : ""))
    .catch(() => "");
  if (mine !== asked || underway) return;
  setNext(html ? ready(parsed(html)) : null);
  if (next) prefetchSoon(); // again when its lease has run out
}

function ready(fragment) {
  const { lease, seconds } = fragment.querySelector("form.answer").dataset;
  const nodes = [...fragment.childNodes];
  return { nodes, lease, until: performance.now() + 1000 * seconds - MARGIN_MS };
}

/* What may be painted now, once: not a lease that has run out or is here already. */
function takeNext() {
  const taken = next;
  setNext(null);
  asked += 1;
  const here = work.querySelector("form.answer")?.dataset.lease;
  return taken && taken.until > performance.now() && taken.lease !== here ? taken : null;
}

/* Whoever comes back to the page finds the next one ready. */
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !underway) prefetchSoon();
});
