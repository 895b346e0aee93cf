/* Small manners for every page: ask before what cannot be undone, close a menu, count down. */

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) {
    event.preventDefault();
    event.stopImmediatePropagation();
  }
}, true);

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submits]")) event.target.form.requestSubmit();
});

/* <button data-copies="ID">: puts that element's text on the clipboard, and says so on itself. */
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copies]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent);
  button.textContent = "✓";
});

/* The menus of the bar close as menus do: with Escape, and when something else is clicked. */
const openMenus = () => document.querySelectorAll(".topbar details[open]");

document.addEventListener("click", (event) => {
  openMenus().forEach((menu) => {
    if (!menu.contains(event.target)) menu.open = false;
  });
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  openMenus().forEach((menu) => {
    menu.open = false;
    menu.querySelector("summary").focus();
  });
});

/* <details id=... data-stays>: as the reader left it, however often htmx brings it anew. */
const left = new Map();

document.addEventListener("toggle", (event) => {
  if (event.target.matches("details[data-stays]")) left.set(event.target.id, event.target.open);
}, true);

document.addEventListener("htmx:load", (event) => {
  event.target.querySelectorAll("details[data-stays]").forEach((one) => {
    if (left.has(one.id)) one.open = left.get(one.id);
  });
});

/* <span data-countdown="12">: shows the seconds left. Whoever acts on zero is htmx or the reader. */
function countDown() {
  document.querySelectorAll("[data-countdown]").forEach((shown) => {
    const left = Math.max(0, Number(shown.dataset.countdown) - 1);
    shown.dataset.countdown = left;
    shown.textContent = left;
  });
}

setInterval(countDown, 1000);
