// From a file in the browser to a job: which column is the text, what to find out, a look at it, and off.

import { ask } from "./api.js";
import { FileProblem, decoded, readRows } from "./csv.js";
import { $, h, put, say, show } from "./dom.js";
import { plural } from "./words.js";

const MOST_BYTES = 50 * 2 ** 20;
const PREVIEW_ROWS = 5;
const PREVIEW_COLUMNS = 8;
const TEXT_NAMES = ["text", "content", "review", "comment", "message", "body", "sentence", "tweet"];
const MEMBERS = ["text", "description", "fields", "options"];
const FIXED = "\0fixed";
const REMEMBERED = 50;

// The first texts of the jobs that this tab handed in: results name their rows by number alone.
export const handedIn = new Map();

let file = null; // { name, columns, rows, lines }
let turn = 0; // counts the files that were given and discarded
let key = null; // of the job that the present choice makes

export async function fillTasks() {
  try {
    const { tasks } = await ask("/api/v1/tasks");
    $("job-task").append(...tasks.map((task) => h("option", { value: task.task_key }, task.task_key)));
  } catch {
    // The list of jobs says what is wrong; without tasks the router finds them.
  }
}

async function take(given) {
  const mine = (turn += 1);
  file = null;
  complain(null);
  show($("setup"), false);
  try {
    if (given.size > MOST_BYTES) {
      throw new FileProblem("The file is larger than 50 MB. Use `mole jobs submit` or POST /api/v1/jobs for it.");
    }
    const bytes = await given.arrayBuffer();
    if (mine !== turn) return; // another one was given meanwhile
    file = { name: given.name, ...readRows(given.name, decoded(bytes)) };
    offer();
  } catch (problem) {
    if (mine === turn) complain(problem.message);
  }
}

function offer() {
  const { columns, rows, lines } = file;
  say($("file-facts"), `${file.name}: ${plural(rows.length, "row")}, ${plural(columns.length, "column")}`);
  put($("text-column"), columns.map((name) => h("option", { value: name }, name)));
  $("text-column").value = columns.find((name) => TEXT_NAMES.includes(name.toLowerCase())) ?? longest(columns, rows);
  const question = columns.find((name) => name.toLowerCase() === "description");
  put(
    $("question-column"),
    h("option", { value: FIXED }, "The same for every row"),
    columns.map((name) => h("option", { value: name }, `Column “${name}”`)),
  );
  $("question-column").value = question ?? FIXED;
  const requests = lines && columns.includes("text") && columns.every((name) => MEMBERS.includes(name));
  show($("as-they-are"), requests);
  $("whole").checked = requests;
  put($("fields-list"), columns.map((name) => h("label", {}, h("input", { type: "checkbox", value: name }), name)));
  show($("fields"), !requests && columns.length > 1);
  show($("setup"), true);
  changed();
  $("text-column").focus();
}

// The column with the longest values of the first rows is most likely the text.
function longest(columns, rows) {
  const size = (name) => rows.slice(0, 50).reduce((sum, row) => sum + String(row[name] ?? "").length, 0);
  return columns.reduce((a, b) => (size(a) >= size(b) ? a : b));
}

function changed() {
  key = null;
  const whole = $("whole").checked;
  for (const id of ["text-column", "question-column", "question", "job-task", "probabilities"]) $(id).disabled = whole;
  show($("question-field"), $("question-column").value === FIXED);
  say($("start"), `Start the job with ${plural(file.rows.length, "row")}`);
  const chosen = [$("text-column").value, ...(whole ? [] : [$("question-column").value, ...fields()])];
  const columns = [...new Set([...chosen.filter((name) => name !== FIXED), ...file.columns])].slice(0, PREVIEW_COLUMNS);
  const used = (name) => (chosen.includes(name) ? "used" : null);
  put(
    $("preview"),
    h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col", class: used(name) }, name)))),
    h(
      "tbody",
      {},
      file.rows.slice(0, PREVIEW_ROWS).map((row) =>
        h("tr", {}, columns.map((name) => h("td", { dir: "auto", class: used(name) }, short(row[name])))),
      ),
    ),
  );
}

export function short(value) {
  const text = typeof value === "string" ? value : value === undefined ? "" : JSON.stringify(value);
  return text.length > 160 ? `${text.slice(0, 160)}…` : text;
}

const fields = () => [...$("fields-list").querySelectorAll("input:checked")].map((box) => box.value);

function request(row) {
  if ($("whole").checked) return row;
  const value = (name) => (typeof row[name] === "string" ? row[name] : row[name] == null ? "" : JSON.stringify(row[name]));
  const made = { text: value($("text-column").value) };
  const column = $("question-column").value;
  const question = column === FIXED ? $("question").value : value(column);
  if (question.trim()) made.description = question;
  const named = fields();
  if (named.length) made.fields = Object.fromEntries(named.map((name) => [name, value(name)]));
  const options = {};
  if ($("job-task").value) options.task = $("job-task").value;
  if ($("probabilities").checked) options.return_probabilities = true;
  if (Object.keys(options).length) made.options = options;
  return made;
}

async function start(event) {
  event.preventDefault();
  const button = $("start");
  button.disabled = true;
  complain(null);
  // The same key where the answer to the first try was lost: one file is one job.
  key ??= Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const mine = file; // while it is sent it may be discarded, or another one chosen
  const texts = mine.rows.slice(0, REMEMBERED).map((row) => String(request(row).text ?? ""));
  const body = new Blob(mine.rows.map((row) => `${JSON.stringify(request(row))}\n`), { type: "application/x-ndjson" });
  try {
    const job = await ask("/api/v1/jobs", { method: "POST", body, headers: { "Idempotency-Key": key } });
    handedIn.set(job.job_id, texts);
    if (file === mine) discard();
    document.dispatchEvent(new CustomEvent("mole:job"));
    $("jobs-title").scrollIntoView({ block: "nearest" });
  } catch (problem) {
    complain(problem.message);
  } finally {
    button.disabled = false;
  }
}

function discard() {
  turn += 1;
  file = null;
  $("file").value = "";
  show($("setup"), false);
  $("file").focus();
}

function complain(text) {
  say($("file-problem"), text ?? "");
  show($("file-problem"), text !== null);
}

$("file").addEventListener("change", () => $("file").files.length && take($("file").files[0]));
$("setup").addEventListener("submit", start);
$("setup").addEventListener("change", changed);
$("setup").addEventListener("input", () => (key = null));
$("discard").addEventListener("click", discard);

const drop = $("drop");
for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
});
