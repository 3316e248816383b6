// Puts a text on the clipboard, also where the page came over plain HTTP and browsers offer no clipboard.

import { h } from "./dom.js";

export async function copyText(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not allowed: the old way may be.
    }
  }
  const scratch = h("textarea", { class: "sr", readonly: true, "aria-hidden": "true" });
  scratch.value = text;
  document.body.append(scratch);
  const focused = document.activeElement;
  scratch.select();
  const done = document.execCommand("copy");
  scratch.remove();
  focused?.focus();
  return done;
}
