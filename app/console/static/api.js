// Asks the coordinator; where it wants a key, asks the person for one, once for all that wait.

import { $, say } from "./dom.js";

const STORED = "mole.key";
let memory = null; // where the browser keeps no session storage
let asking = null;
let declined = false;

export class Problem extends Error {
  constructor(body, status) {
    super(body.detail || body.title || `The coordinator answered with status ${status}.`);
    this.title = body.title ?? "Problem";
    this.status = status;
    this.type = body.type ?? "";
  }
}

export function key() {
  try {
    return sessionStorage.getItem(STORED) ?? memory;
  } catch {
    return memory;
  }
}

function keep(value) {
  memory = value;
  try {
    if (value === null) sessionStorage.removeItem(STORED);
    else sessionStorage.setItem(STORED, value);
  } catch {
    // It stays in this page alone.
  }
  document.dispatchEvent(new CustomEvent("mole:key"));
}

// The answer's body as JSON, or the response itself with `raw`. Throws a Problem.
export async function ask(path, { method = "GET", body, raw = false, headers = {}, signal } = {}) {
  for (;;) {
    const used = key();
    const response = await send(path, method, body, headers, used, signal);
    if (response.status === 401 && !declined) {
      if (key() !== used || (await askForKey("The coordinator asks for an API key."))) continue;
    }
    if (!response.ok) throw await problem(response);
    return raw ? response : await response.json();
  }
}

async function send(path, method, body, headers, used, signal) {
  const json = body !== undefined && !(body instanceof Blob);
  const all = { ...headers };
  if (json) all["Content-Type"] = "application/json";
  if (used) all.Authorization = `Bearer ${used}`;
  try {
    return await fetch(`.${path}`, { method, headers: all, body: json ? JSON.stringify(body) : body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "No answer", detail: "The coordinator cannot be reached." }, 0);
  }
}

async function problem(response) {
  const text = await response.text();
  try {
    return new Problem(JSON.parse(text), response.status);
  } catch {
    return new Problem({}, response.status);
  }
}

// Opens the dialog; true where a key was given.
export function askForKey(why) {
  declined = false;
  asking ??= new Promise((resolve) => {
    const dialog = $("key-dialog");
    const input = $("key-input");
    say($("key-why"), `${why} It is kept in this tab only and is gone when you close it.`);
    input.value = "";
    dialog.returnValue = "cancel";
    dialog.addEventListener(
      "close",
      () => {
        const given = input.value.trim();
        input.value = "";
        asking = null;
        const use = dialog.returnValue === "use" && given !== "";
        if (use) keep(given);
        else if (dialog.returnValue === "forget") keep(null);
        declined = !use;
        resolve(use);
      },
      { once: true },
    );
    dialog.showModal();
    input.focus();
  });
  return asking;
}
