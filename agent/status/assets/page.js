// Keeps the page current: hears from the agent that something changed, fetches the page anew, and
// replaces only the parts that differ, so that a screen reader says what changed and nothing else.
// When the agent does not answer, the page says so instead of showing an old "all well".
"use strict";

(() => {
  const EVERY_MS = 3000; // to ask, while nothing is heard
  const SILENCE_MS = 12000; // longer than the agent ever leaves a listener without a word
  const PATIENCE_MS = 8000;
  const AGAIN_MS = 15000;
  const lost = document.getElementById("lost");
  const taken = document.getElementById("taken");
  let stream = null;
  let heardAt = 0;
  let busy = false;
  let again = false;
  let openAfter = 0;

  // A part that is replaced must not take the focus or an opened table with it.
  const replace = (part, next) => {
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    const opened = [...part.querySelectorAll("details[open]")].map((each) => each.id);
    part.innerHTML = next.innerHTML;
    for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  };

  const asShown = (part) => {
    const copy = part.cloneNode(true);
    for (const each of copy.querySelectorAll("details[open]")) each.removeAttribute("open");
    return copy.innerHTML;
  };

  const adopt = (fresh) => {
    const taken_anew = fresh.getElementById("taken");
    if (!taken_anew || fresh.body.dataset.version !== document.body.dataset.version) {
      location.replace("/");
      return;
    }
    document.title = fresh.title;
    taken.textContent = taken_anew.textContent;
    const nav = document.querySelector("nav");
    const next_nav = fresh.querySelector("nav");
    if (nav.innerHTML !== next_nav.innerHTML) replace(nav, next_nav);
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      if (part.className !== next.className) part.className = next.className;
      if (asShown(part) !== next.innerHTML) replace(part, next);
    }
  };

  const say = (isLost) => {
    const words = isLost ? `${lost.dataset.words} ${taken.textContent}.` : "";
    if (lost.textContent !== words) lost.textContent = words;
    if (isLost) document.title = lost.dataset.title;
    document.body.classList.toggle("is-lost", isLost);
  };

  const look = async () => {
    if (document.hidden) return;
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    again = false;
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
    }
    if (again) look();
  };

  const close = () => {
    if (stream) stream.close();
    stream = null;
  };

  const listen = () => {
    if (stream || document.hidden || Date.now() < openAfter) return;
    stream = new EventSource("/agent/v1/events");
    stream.addEventListener("status", () => {
      heardAt = Date.now();
      look();
    });
    stream.addEventListener("beat", (event) => {
      heardAt = Date.now();
      if (document.body.classList.contains("is-lost")) look();
      else taken.textContent = JSON.parse(event.data).clock;
    });
    stream.addEventListener("error", () => {
      heardAt = 0;
      if (stream && stream.readyState === EventSource.CLOSED) {
        // Refused, as when too many listen: ask now and then instead, and try again later.
        close();
        openAfter = Date.now() + AGAIN_MS;
      }
      look();
    });
  };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      close();
    } else {
      heardAt = 0;
      look();
      listen();
    }
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", listen);

  setInterval(() => {
    listen();
    if (Date.now() - heardAt > SILENCE_MS) look();
  }, EVERY_MS);
  listen();
})();
