// Asks one text and shows the answer, its route, and the same as code.

import { answerView, routeView } from "./answer.js";
import { ask, key } from "./api.js";
import { copyText } from "./copying.js";
import { $, h, put, say, show } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { poll } from "./poll.js";
import { curl, python } from "./snippets.js";
import { classifyRoute, decidedRoute } from "./stations.js";
import { verdictView } from "./verdict.js";
import { language } from "./words.js";

const ROOT = new URL(".", location.href).href.replace(/\/$/, "");
const TASKS_MS = 15_000;
let tasks = [];
let asked = 0;

function request() {
  const options = { return_probabilities: true };
  if ($("task").value) options.task = $("task").value;
  if ($("language").value) options.language = $("language").value;
  if ($("via").value !== "auto") options.via = $("via").value;
  if ($("timeout").value) options.timeout_seconds = Number($("timeout").value);
  const made = { text: $("text").value };
  if ($("description").value.trim()) made.description = $("description").value;
  if ($("query").value.trim()) made.fields = { query: $("query").value };
  return { ...made, options };
}

async function run(path, view, route, judged) {
  if (!$("ask").reportValidity()) return;
  const body = request();
  const turn = (asked += 1);
  $("answer").setAttribute("aria-busy", "true");
  $("answer-body").classList.add("waiting");
  try {
    const answer = await ask(path, { method: "POST", body });
    if (turn !== asked) return; // another question was asked meanwhile
    put($("answer-body"), view(answer, body.text), judged ? verdictView(answer, tasks) : null);
    put($("path-body"), route(answer));
    show($("path"), true);
  } catch (problem) {
    if (turn !== asked) return;
    put($("answer-body"), h("p", { class: "notice bad", role: "alert" }, h("b", {}, `${problem.title}. `), problem.message));
    show($("path"), false);
  } finally {
    if (turn === asked) {
      $("answer").removeAttribute("aria-busy");
      $("answer-body").classList.remove("waiting");
    }
  }
}

const classify = () => run("/api/v1/classify", (answer, text) => answerView(answer, text, retryAs), classifyRoute, true);
const decide = () => run("/api/v1/route", (answer) => routeView(answer, retryAs), decidedRoute, false);

function retryAs(task) {
  $("task").value = task;
  $("options").open = true;
  changed();
  classify();
}

function changed() {
  const made = request();
  const chosen = Object.entries(made.options).filter(([name]) => name !== "return_probabilities");
  say($("options-summary"), chosen.map(([name, value]) => `${name} ${value}`).join(", "));
  const write = $("tab-curl").getAttribute("aria-selected") === "true" ? curl : python;
  say($("snippet"), write(ROOT, made, Boolean(key())));
}

function choose(tab) {
  for (const other of [$("tab-curl"), $("tab-python")]) {
    other.setAttribute("aria-selected", String(other === tab));
    other.tabIndex = other === tab ? 0 : -1;
  }
  $("code").setAttribute("aria-labelledby", tab.id);
  changed();
}

function take(example) {
  $("text").value = example.text;
  $("description").value = example.description;
  $("query").value = example.query ?? "";
  for (const id of ["task", "language", "timeout"]) $(id).value = "";
  $("via").value = "auto";
  changed();
  classify();
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  classify();
});
$("ask").addEventListener("input", changed);
$("ask").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) classify();
});
$("route").addEventListener("click", decide);
for (const tab of [$("tab-curl"), $("tab-python")]) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = tab.id === "tab-curl" ? $("tab-python") : $("tab-curl");
    choose(other);
    other.focus();
  });
}
$("copy").addEventListener("click", async () => {
  const done = await copyText($("snippet").textContent);
  say($("copy"), done ? "Copied" : "Select it and copy");
  setTimeout(() => say($("copy"), "Copy"), 1500);
});
document.addEventListener("mole:key", changed);

put(
  $("examples"),
  EXAMPLES.map((example) =>
    h(
      "li",
      {},
      h(
        "button",
        { type: "button", click: () => take(example) },
        h("span", { lang: example.code === "en" ? null : example.code }, example.name),
        h("small", {}, language(example.code)),
      ),
    ),
  ),
);
changed();

async function loadTasks() {
  tasks = (await ask("/api/v1/tasks")).tasks;
  const chosen = $("task").value;
  put($("task"), $("task").options[0], tasks.map((task) => h("option", { value: task.task_key }, task.task_key)));
  $("task").value = chosen;
}

poll(loadTasks, TASKS_MS);
