// Workers, models and tasks, live.

import { ask } from "./api.js";
import { $, h, keyed, put, say, svg } from "./dom.js";
import { poll } from "./poll.js";
import { clock, count, language, milliseconds, moment, plural } from "./words.js";

const LOOK_MS = 2000;
const TASKS_MS = 20_000;
const KEPT = 60;
const TONES = { healthy: "ok", loading: "busy", draining: "warn", ejected: "bad", down: "bad", refused: "bad" };
const loads = new Map();
const states = new Map();
const identity = (worker) => `${worker.worker_id} ${worker.model_key}`;

async function look() {
  const [fleet, health] = await Promise.all([ask("/api/v1/workers"), ask("/api/v1/health")]);
  remember(fleet.workers);
  tiles(fleet.workers);
  keyed($("workers"), fleet.workers, identity, makeWorker, updateWorker);
  mapping(fleet.mapping);
  checks(health);
  say($("live"), `Live, last look ${clock(Date.now())}`);
}

async function lookAtTasks() {
  const { tasks } = await ask("/api/v1/tasks");
  keyed($("tasks"), tasks, (task) => task.task_key, makeTask, updateTask);
}

function remember(workers) {
  const changes = [];
  for (const worker of workers) {
    const name = identity(worker);
    const kept = loads.get(name) ?? [];
    kept.push(Math.max(worker.outstanding, worker.queue_depth ?? 0));
    loads.set(name, kept.slice(-KEPT));
    const before = states.get(name);
    if (before && before !== worker.state) changes.push(`${worker.worker_id} is ${worker.state}`);
    states.set(name, worker.state);
  }
  if (changes.length) say($("changes"), changes.join("; "));
}

function tiles(workers) {
  const healthy = workers.filter((worker) => worker.state === "healthy").length;
  const models = new Set(workers.map((worker) => worker.model_key));
  const sum = (member) => workers.reduce((total, worker) => total + (worker[member] ?? 0), 0);
  const medians = workers.map((worker) => worker.latency_ms.p50).filter((value) => value !== null);
  const figures = [
    ["Healthy workers", `${count(healthy)} of ${count(workers.length)}`],
    ["Models", count(models.size)],
    ["In flight", count(sum("outstanding"))],
    ["Queued at workers", count(sum("queue_depth"))],
    ["Slowest median", medians.length ? milliseconds(Math.max(...medians)) : "–"],
  ];
  keyed(
    $("tiles"),
    figures,
    ([name]) => name,
    ([name]) => h("div", { class: "tile" }, h("dt", {}, name), h("dd")),
    (tile, [, value]) => say(tile.lastChild, value),
  );
}

function makeWorker() {
  const cells = Array.from({ length: 9 }, (_, index) => h("td", { class: index > 2 && index < 7 ? "num" : null }));
  put(cells[0], h("b"), h("small", { class: "mono" }));
  put(cells[1], h("span", { class: "pill" }), h("small"));
  cells[2].className = "mono";
  put(
    cells[7],
    svg(
      "svg",
      { class: "spark", viewBox: "0 0 120 26", "aria-hidden": "true" },
      svg("path", { class: "area" }),
      svg("path"),
    ),
  );
  put(cells[8], h("details", {}, h("summary"), h("ul")));
  return h("tr", {}, cells);
}

function updateWorker(row, worker) {
  const cells = row.children;
  say(cells[0].firstChild, worker.worker_id);
  say(cells[0].lastChild, worker.url || "in this process");
  const pill = cells[1].firstChild;
  pill.dataset.tone = TONES[worker.state];
  say(pill, worker.state);
  const until = worker.until ? ` (tried again ${clock(worker.until)})` : "";
  say(cells[1].lastChild, worker.reason ? `${worker.reason}${until}` : "");
  say(cells[2], worker.model_key);
  say(cells[3], count(worker.outstanding));
  say(cells[4], worker.queue_depth === null ? "–" : count(worker.queue_depth));
  say(cells[5], milliseconds(worker.latency_ms.p50));
  say(cells[6], milliseconds(worker.latency_ms.p95));
  spark(cells[7].firstChild, loads.get(identity(worker)));
  const details = cells[8].firstChild;
  const adapters = worker.adapters ?? [];
  say(details.firstChild, `${plural(worker.tasks.length, "task")}, ${plural(adapters.length, "adapter")}`);
  const lines = [...worker.tasks, ...adapters.map((name) => `adapter ${name}`)];
  keyed(details.lastChild, lines, (line) => line, () => h("li", { class: "mono" }), say);
}

// The bigger of calls in flight and the worker's own queue, one point a look.
function spark(drawing, values) {
  const top = Math.max(4, ...values);
  const points = values.map((value, index) => {
    const x = 120 - (values.length - 1 - index) * (120 / (KEPT - 1));
    return `${x.toFixed(1)} ${(24 - (value / top) * 22).toFixed(1)}`;
  });
  const path = `M${points.join("L")}`;
  drawing.lastChild.setAttribute("d", path);
  const first = points[0].split(" ")[0];
  drawing.firstChild.setAttribute("d", `${path}L120 26L${first} 26Z`);
}

function mapping(info) {
  const body = $("mapping");
  const text = JSON.stringify(info);
  if (body.dataset.shown === text) return;
  body.dataset.shown = text;
  const facts = h("dl", { class: "facts" }, h("dt", {}, "In force since"), h("dd", {}, moment(info.loaded_at)));
  if (!info.refused) {
    put(body, facts, h("p", { class: "hint" }, "The last edit was taken."));
    return;
  }
  facts.append(h("dt", {}, "Edit refused"), h("dd", {}, moment(info.refused.at)));
  put(
    body,
    facts,
    h("pre", { role: "alert" }, info.refused.error),
    h("p", { class: "hint" }, "The files above stay in force until the edit is mended."),
  );
}

function checks(health) {
  const facts = [["status", health.status], ["mode", health.mode], ...Object.entries(health.checks)];
  keyed(
    $("checks"),
    facts.flatMap(([name, value]) => [
      { key: `${name} `, tag: "dt", text: name },
      { key: name, tag: "dd", text: value },
    ]),
    (fact) => fact.key,
    (fact) => h(fact.tag),
    (element, fact) => say(element, fact.text),
  );
}

function makeTask() {
  const row = h("tr", {}, h("td", {}, h("b"), h("small")), h("td"), h("td", { class: "mono" }), h("td"), h("td", { class: "num" }));
  put(row.children[1], h("span", { class: "pill" }));
  return row;
}

function updateTask(row, task) {
  const cells = row.children;
  say(cells[0].firstChild, task.task_key);
  say(cells[0].lastChild, task.description ?? "");
  const pill = cells[1].firstChild;
  pill.dataset.tone = task.available ? "ok" : "bad";
  say(pill, task.available ? "yes" : "no worker");
  say(cells[2], task.experts.join(", "));
  say(cells[3], task.languages ? task.languages.map(language).join(", ") : "every language");
  say(cells[4], count(task.labels.length));
}

poll(look, LOOK_MS);
poll(lookAtTasks, TASKS_MS);
