// What every page has: the coordinator's health, the key, the colours.

import { askForKey, key } from "./api.js";
import { $, say } from "./dom.js";

const LOOK_MS = 10_000;
const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };
const SPOKEN = { auto: "as the system", light: "light", dark: "dark" };

function theme() {
  return document.documentElement.dataset.theme ?? "auto";
}

function tellTheme() {
  const button = $("theme-button");
  button.textContent = THEMES[theme()];
  button.setAttribute("aria-label", `Colours: ${SPOKEN[theme()]}`);
}

$("theme-button").addEventListener("click", () => {
  const order = Object.keys(THEMES);
  const next = order[(order.indexOf(theme()) + 1) % order.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("mole.theme", next);
  } catch {
    // It holds for this page.
  }
  tellTheme();
});

function tellKey() {
  $("key-button").textContent = key() ? "API key set" : "API key";
}

$("key-button").addEventListener("click", () => {
  askForKey(key() ? "A key is set; another one takes its place." : "A key is sent with every request.");
});
document.addEventListener("mole:key", tellKey);

async function look() {
  const line = $("health");
  try {
    const response = await fetch("./api/v1/health");
    const body = await response.json();
    line.dataset.state = body.status === "ready" ? "ok" : "warn";
    say(line.lastElementChild, body.checks?.workers ? `${body.status}, ${body.checks.workers}` : body.status);
  } catch {
    line.dataset.state = "bad";
    say(line.lastElementChild, "not reachable");
  }
}

tellTheme();
tellKey();
look();
setInterval(() => document.hidden || look(), LOOK_MS);
document.addEventListener("visibilitychange", () => document.hidden || look());
