// "This is wrong": one click is feedback already; what would have been right can follow and replaces it.

import { ask } from "./api.js";
import { h, put, say } from "./dom.js";

export function verdictView(answer, tasks) {
  const status = h("p", { class: "hint", role: "status" });
  const more = h("div");
  const body = (said) => ({ request_id: answer.request_id, ...said });

  async function send(said, thanks) {
    buttons.forEach((button) => (button.disabled = true));
    try {
      await ask("/api/v1/feedback", { method: "POST", body: body(said) });
      say(status, thanks);
      return true;
    } catch (problem) {
      say(status, `Not stored: ${problem.message}`);
      buttons.forEach((button) => (button.disabled = false));
      return false;
    }
  }

  const wrong = h("button", { type: "button", click: tellWrong }, "This is wrong");
  const right = h("button", { type: "button", click: tellRight }, "This is right");
  const buttons = answer.abstained ? [wrong] : [right, wrong];

  async function tellRight() {
    await send({ score: 1, correct_task: answer.task }, "Thank you: the router learns from it.");
  }

  async function tellWrong() {
    const stored = await send({ score: 0 }, "Noted. If you know better, say what would have been right:");
    if (stored) correction();
  }

  function correction() {
    const task = h("select", { id: "right-task" }, option("", "Choose the right task"), tasks.map((t) => option(t.task_key, t.task_key)));
    const label = h("select", { id: "right-label" });
    const labels = () => {
      const chosen = tasks.find((t) => t.task_key === task.value);
      const known = chosen?.kind === "classification" ? chosen.labels : []; // entities have no right label
      put(label, option("", known.length ? "Choose the right label" : "Only the task"), known.map((l) => option(l, l)));
      label.disabled = known.length === 0;
      submit.disabled = !task.value;
    };
    const submit = h("button", { type: "submit", class: "primary", disabled: true }, "Send what is right");
    const form = h(
      "form",
      { class: "grid2" },
      h("div", { class: "field" }, h("label", { for: "right-task" }, "Right task"), task),
      h("div", { class: "field" }, h("label", { for: "right-label" }, "Right label"), label),
      h("div", {}, submit),
    );
    task.value = answer.task ?? "";
    task.addEventListener("change", labels);
    labels();
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const said = { correct_task: task.value, ...(label.value ? { correct_label: label.value } : { score: 0 }) };
      if (await send(said, "Thank you: stored, and the router learns from it.")) put(more);
    });
    put(more, form);
    task.focus();
  }

  return h("div", { class: "verdict" }, h("div", { class: "actions" }, buttons, status), more);
}

function option(value, text) {
  return h("option", { value }, text);
}
