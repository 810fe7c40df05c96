"use strict";
(() => {
  const live = document.getElementById("live");
  const pause = document.getElementById("pause");
  let paused = false;
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on updating" : "Pause updates";
  });
  // What has the focus is being read or filled in: it is not replaced.
  const replace = (fresh) => {
    const sections = [...live.querySelectorAll("section")];
    const others = [...fresh.querySelectorAll("#live section")];
    if (sections.length !== others.length) {
      if (!live.contains(document.activeElement)) live.replaceChildren(...fresh.getElementById("live").childNodes);
      return;
    }
    sections.forEach((section, i) => {
      if (section.contains(document.activeElement) || section.querySelector("form")) return;
      const scrolled = section.querySelector(".wide")?.scrollLeft ?? 0;
      section.className = others[i].className;
      section.replaceChildren(...others[i].childNodes);
      const wide = section.querySelector(".wide");
      if (wide) wide.scrollLeft = scrolled;
    });
    document.title = fresh.title;
  };
  const update = async () => {
    if (!paused && !document.hidden) {
      try {
        const response = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
        if (!response.ok) throw new Error(response.statusText);
        replace(new DOMParser().parseFromString(await response.text(), "text/html"));
      } catch {
        document.title = "No response: peerlimit";
        const when = live.querySelector(".when");
        if (when && !when.dataset.stale) {
          when.dataset.stale = "yes";
          when.append(" The node does not respond any more: this is its last state.");
        }
      }
    }
    setTimeout(update, 2000);
  };
  setTimeout(update, 2000);
})();
