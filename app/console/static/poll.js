// Repeats something while the page can be seen.

import { $, say, show } from "./dom.js";

const wrong = new Map();

// Waits so many milliseconds between two rounds, or as many as the last round returned.
// Returns a function that lets the next round begin at once.
export function poll(action, everyMs) {
  let wake = () => {};
  const loop = async () => {
    for (;;) {
      if (document.hidden) await visible();
      let pauseMs = everyMs;
      try {
        pauseMs = (await action()) ?? everyMs;
        notice(null, action);
      } catch (error) {
        notice(error.message, action);
      }
      await new Promise((resolve) => {
        wake = resolve;
        setTimeout(resolve, pauseMs);
      });
    }
  };
  loop();
  return () => wake();
}

// A line on top of the page that says what is wrong with something; null takes that away.
export function notice(text, about = "page") {
  if (text === null) wrong.delete(about);
  else wrong.set(about, text);
  const line = $("notice");
  say(line, [...new Set(wrong.values())].join(" "));
  show(line, wrong.size > 0);
}

function visible() {
  return new Promise((resolve) => {
    const seen = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", seen);
      resolve();
    };
    document.addEventListener("visibilitychange", seen);
  });
}
