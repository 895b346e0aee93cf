/* Small manners for every page: ask before what cannot be undone, count down to a retry. */

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

/* <span data-countdown="12">: shows the seconds left. Whoever acts on zero is htmx or the reader. */
function countDown() {
  document.querySelectorAll("[data-countdown]").forEach((shown) => {
    const left = Math.max(0, Number(shown.dataset.countdown) - 1);
    shown.dataset.countdown = left;
    shown.textContent = left;
  });
}

setInterval(countDown, 1000);
