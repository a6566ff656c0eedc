"use strict";
// Pages that show figures of now are fetched again while somebody looks. Without this file they
// stand still until they are loaded again; nothing else depends on it.
(() => {
  const main = document.getElementById("main");
  if (!main || !main.dataset.refresh) return;
  let paused = false;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "small updates";
  const name = () => { button.textContent = paused ? "Resume updates" : "Pause updates"; };
  button.addEventListener("click", () => { paused = !paused; name(); });
  name();
  main.before(button);

  const busy = () =>
    paused || document.hidden || main.contains(document.activeElement) ||
    !getSelection().isCollapsed;

  const refresh = async () => {
    if (!busy()) {
      try {
        const answer = await fetch(location.href, { headers: { accept: "text/html" } });
        if (answer.redirected) { location.reload(); return; }
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
        if (fresh && !busy()) {
          const open = [...main.querySelectorAll("details")].map((each) => each.open);
          main.replaceChildren(...fresh.childNodes);
          main.querySelectorAll("details").forEach((each, place) => { each.open = open[place] || false; });
          if (!fresh.dataset.refresh) { button.remove(); return; }
        }
      } catch { /* the console is away for a moment: what was known stays in sight */ }
    }
    setTimeout(refresh, Number(main.dataset.refresh) * 1000);
  };
  setTimeout(refresh, Number(main.dataset.refresh) * 1000);
})();
