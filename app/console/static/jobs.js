// Hands a file in as a job, and shows the caller's jobs and their results.

import { ask } from "./api.js";
import { $, h, keyed, put, say, show } from "./dom.js";
import { notice, poll } from "./poll.js";
import { firstResults, saveLines, saveTable } from "./results.js";
import { fillTasks, handedIn, short } from "./upload.js";
import { count, duration, language, moment, percent, plural } from "./words.js";

const LOOK_MS = 1500;
const QUIET_MS = 10_000;
const SHOWN = 50;
const TONES = { queued: "", running: "busy", succeeded: "ok", failed: "bad", cancelled: "warn" };
const states = new Map();

const finished = (job) => job.finished_at !== null && job.finished_at !== undefined;

async function look() {
  const { jobs } = await ask("/api/v1/jobs");
  const changes = [];
  for (const job of jobs) {
    const before = states.get(job.job_id);
    if (before && before !== job.state) changes.push(`Job ${job.job_id.slice(0, 8)} ${job.state}`);
    states.set(job.job_id, job.state);
  }
  if (changes.length) say($("job-changes"), changes.join("; "));
  keyed($("jobs"), jobs, (job) => job.job_id, make, update);
  show($("no-jobs"), jobs.length === 0);
  const unfinished = jobs.filter((job) => !finished(job)).length;
  say($("jobs-live"), unfinished ? `${plural(unfinished, "job")} under way` : "");
  return unfinished ? LOOK_MS : QUIET_MS;
}

function make(job) {
  const id = job.job_id;
  const button = (text, action, kind = "small") => h("button", { type: "button", class: kind, click: () => act(action) }, text);
  return h(
    "li",
    {},
    h("div", { class: "job-head" }, h("span", { class: "pill" }), h("span", { class: "mono" }, id.slice(0, 8)), h("span", { class: "hint" })),
    h(
      "div",
      { class: "bar-track", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-label": `Job ${id.slice(0, 8)}` },
      h("i"),
    ),
    h("p", { class: "job-figures" }),
    h(
      "div",
      { class: "actions" },
      button("Preview", () => preview(id)),
      button("JSON Lines", () => saveLines(id)),
      button("CSV", () => saveTable(id)),
      button("Cancel", () => cancel(id), "small danger"),
    ),
  );
}

function update(row, job) {
  const [head, track, figures, actions] = row.children;
  const [pill, , when] = head.children;
  const share = (job.done + job.failed) / job.total;
  pill.dataset.tone = TONES[job.state];
  say(pill, job.state);
  say(when, finished(job) ? `finished ${moment(job.finished_at)}` : `handed in ${moment(job.created_at)}`);
  track.firstChild.style.setProperty("--share", share);
  track.setAttribute("aria-valuenow", Math.floor(share * 100));
  const failed = job.failed ? `, ${count(job.failed)} failed` : "";
  const left = job.eta_seconds === null || job.eta_seconds === undefined ? "" : `, about ${duration(job.eta_seconds)} left`;
  say(figures, `${count(job.done + job.failed)} of ${count(job.total)} rows${failed}${left}`);
  const [look, lines, table, stop] = actions.children;
  for (const one of [look, lines, table]) one.disabled = job.done + job.failed === 0;
  show(stop, !finished(job));
}

async function act(action) {
  try {
    await action();
    notice(null);
  } catch (problem) {
    notice(problem.message);
  }
}

async function cancel(id) {
  await ask(`/api/v1/jobs/${id}`, { method: "DELETE" });
  again();
}

async function preview(id) {
  const rows = await firstResults(id, SHOWN);
  say($("results-note"), `Job ${id.slice(0, 8)}: the first ${plural(rows.length, "result")}. Download all of them above.`);
  const texts = handedIn.get(id);
  show($("text-head"), texts !== undefined);
  put($("result-rows"), rows.map((row) => resultRow(row, texts)));
  show($("results"), true);
  $("results-title").focus();
}

function resultRow(row, texts) {
  const said = row.error ? h("span", { class: "pill", "data-tone": "bad" }, row.error.title) : outcome(row);
  return h(
    "tr",
    {},
    h("td", { class: "num" }, count(row.index)),
    texts ? h("td", { class: "text", dir: "auto" }, short(texts[row.index])) : null,
    h("td", {}, said, row.error ? h("small", {}, row.error.detail) : null),
    h("td", { class: "num" }, row.error ? "" : percent(row.confidence)),
    h("td", {}, row.task ?? ""),
    h("td", {}, row.language ? language(row.language) : ""),
    h("td", { class: "mono" }, row.worker_id ?? row.model_key ?? ""),
  );
}

function outcome(row) {
  if (row.abstained) return h("span", { class: "pill", "data-tone": "warn" }, row.abstained.reason);
  if (!row.entities) return h("b", {}, row.result);
  return row.entities.length ? row.entities.map((e) => h("div", {}, h("bdi", {}, e.value), h("small", {}, e.type))) : "nothing found";
}

$("close-results").addEventListener("click", () => {
  show($("results"), false);
  $("jobs-title").scrollIntoView();
});

const again = poll(look, QUIET_MS);
document.addEventListener("mole:job", again);
document.addEventListener("mole:key", () => {
  // What another key has handed in is nothing for this one.
  states.clear();
  handedIn.clear();
  put($("jobs"), []);
  show($("results"), false);
  again();
});
fillTasks();
