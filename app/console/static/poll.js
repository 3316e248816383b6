// Repeats something while the page can be seen.

import { $, say, show } from "./dom.js";

// Returns a function that lets the next round begin at once.
export function poll(action, everyMs) {
  let wake = () => {};
  const loop = async () => {
    for (;;) {
      if (document.hidden) await visible();
      try {
        await action();
        notice(null);
      } catch (error) {
        notice(error.message);
      }
      await new Promise((resolve) => {
        wake = resolve;
        setTimeout(resolve, everyMs);
      });
    }
  };
  loop();
  return () => wake();
}

// A line on top of the page that says what is wrong; null takes it away.
export function notice(text) {
  const line = $("notice");
  say(line, text ?? "");
  show(line, text !== null);
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
