// What stays as the reader left it while htmx renews a part of the page: opened details, and the end of a log.
(() => {
  const open = new Map();
  let isAtEnd = false;
  const log = () => document.getElementById("log");

  document.addEventListener("htmx:beforeSwap", () => {
    for (const details of document.querySelectorAll("#live details[id]")) open.set(details.id, details.open);
    const box = log();
    isAtEnd = box !== null && box.scrollHeight - box.scrollTop - box.clientHeight < 24;
  });
  document.addEventListener("htmx:afterSwap", () => {
    for (const details of document.querySelectorAll("#live details[id]")) {
      if (open.has(details.id)) details.open = open.get(details.id);
    }
    const box = log();
    if (box !== null && isAtEnd) box.scrollTop = box.scrollHeight;
  });

  const lost = (isLost) => document.body.classList.toggle("is-lost", isLost);
  document.addEventListener("htmx:sendError", () => lost(true));
  document.addEventListener("htmx:responseError", () => lost(true));
  document.addEventListener("htmx:afterRequest", (event) => { if (event.detail.successful) lost(false); });

  document.addEventListener("DOMContentLoaded", () => {
    const box = log();
    if (box !== null) box.scrollTop = box.scrollHeight;
  });
})();
