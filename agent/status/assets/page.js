// Keeps the page current: fetches it anew, and replaces only the parts that differ, so that a
// screen reader says what changed and nothing else. When the agent does not answer, the page says
// so instead of showing an old "all well".
"use strict";

(() => {
  const EVERY_MS = 3000;
  const PATIENCE_MS = 8000;
  const lost = document.getElementById("lost");
  const taken = document.getElementById("taken");
  let timer = 0;
  let busy = false;

  const adopt = (fresh) => {
    if (fresh.body.dataset.version !== document.body.dataset.version) {
      location.reload();
      return;
    }
    document.title = fresh.title;
    taken.textContent = fresh.getElementById("taken").textContent;
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      if (part.className !== next.className) part.className = next.className;
      if (part.innerHTML !== next.innerHTML) part.innerHTML = next.innerHTML;
    }
  };

  const say = (isLost) => {
    const words = isLost ? `${lost.dataset.words} ${taken.textContent}.` : "";
    if (lost.textContent !== words) lost.textContent = words;
    if (isLost) document.title = "No answer";
    document.body.classList.toggle("is-lost", isLost);
  };

  const look = async () => {
    if (busy || document.hidden) return;
    busy = true;
    const patience = new AbortController();
    const bell = setTimeout(() => patience.abort(), PATIENCE_MS);
    try {
      const answer = await fetch("/", { cache: "no-store", signal: patience.signal });
      if (!answer.ok) throw new Error(String(answer.status));
      adopt(new DOMParser().parseFromString(await answer.text(), "text/html"));
      say(false);
    } catch {
      say(true);
    } finally {
      busy = false;
      clearTimeout(bell);
      clearTimeout(timer);
      timer = setTimeout(look, EVERY_MS);
    }
  };

  document.addEventListener("visibilitychange", look);
  timer = setTimeout(look, EVERY_MS);
})();
