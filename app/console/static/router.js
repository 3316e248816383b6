// The router's versions, what feedback says of them, and what was measured on the shipped weights.

import { ask } from "./api.js";
import { legend, lines, table, widthOf } from "./charts.js";
import { $, h, keyed, put, say, show } from "./dom.js";
import { notice, poll } from "./poll.js";
import { count, moment, percent, plural } from "./words.js";

const LOOK_MS = 4000;
const FEEDBACK_MS = 20_000;
const TWO_COLUMNS = 868;
const GAP = 28;
const TONES = { live: "ok", candidate: "busy", retired: "", rejected: "warn" };
let feedback = null;
let figures = null;
let versions = null;
let drawn = "";

async function look() {
  versions = await ask("/api/v1/router/versions");
  draw();
}

async function lookAtFeedback() {
  feedback = await ask("/api/v1/router/feedback");
  draw();
}

const named = (version) => (version === null ? "shipped" : count(version));
const saidOf = (version) => feedback?.by_version.find((own) => own.version === version);

function draw() {
  if (!versions) return;
  tiles();
  const shipped = { version: null, state: versions.versions.some((v) => v.state === "live") ? "retired" : "live", metrics: {} };
  keyed($("versions"), [...versions.versions, shipped], (v) => named(v.version), makeRow, updateRow);
  show($("rollback"), versions.versions.some((v) => v.state === "live"));
  const state = JSON.stringify(feedback);
  if (state === drawn || !figures) return;
  drawn = state;
  reliability();
  coverage();
  cost();
}

function tiles() {
  const live = versions.versions.find((version) => version.state === "live")?.version ?? null;
  const own = saidOf(versions.in_force);
  const sum = (member) => feedback?.by_version.reduce((total, one) => total + one[member], 0) ?? 0;
  const settled = versions.refused === null ? (live === versions.in_force ? "" : "changing") : `version ${versions.refused} is refused`;
  const entries = [
    ["In force here", versions.in_force === null ? "shipped" : `version ${versions.in_force}`, settled],
    ["Feedback kept", feedback ? count(feedback.rows) : "–", ""],
    ["Tasks told", feedback ? count(sum("tasks_told")) : "–", ""],
    ["Task accuracy", percent(own?.task_accuracy), own ? `of ${count(own.tasks_told)}` : ""],
    ["Answer accuracy", percent(own?.answer_accuracy), own ? `of ${count(own.answers_judged)}` : ""],
  ];
  keyed(
    $("tiles"),
    entries,
    ([name]) => name,
    ([name]) => h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, h("span"), " ", h("small"))),
    (tile, [, value, note]) => {
      say(tile.lastChild.firstChild, value);
      say(tile.lastChild.lastChild, note);
    },
  );
}

function makeRow(version) {
  const numeric = [0, 4, 5, 6, 7, 8];
  const cells = Array.from({ length: 10 }, (_, index) => h("td", { class: numeric.includes(index) ? "num" : null }));
  put(cells[1], h("span", { class: "pill" }), h("small"));
  if (version.version !== null) {
    const button = h("button", { type: "button", class: "small", click: () => promote(version.version) }, "Promote");
    put(cells[9], button);
  }
  return h("tr", {}, cells);
}

function updateRow(row, version) {
  const cells = row.children;
  const { taught, guard, held_out: held, reasons } = version.metrics;
  const own = saidOf(version.version);
  const pill = cells[1].firstChild;
  pill.dataset.tone = TONES[version.state];
  say(pill, version.state);
  say(cells[1].lastChild, (reasons ?? []).join("; "));
  say(cells[0], named(version.version));
  say(cells[2], version.created_at ? moment(version.created_at) : "with this release");
  say(cells[3], version.version === null ? "–" : named(version.parent));
  say(cells[4], taught ? plural(taught.rows, "row") : "–");
  say(cells[5], percent(guard?.candidate?.accuracy));
  say(cells[6], percent(held?.task_accuracy?.candidate));
  say(cells[7], own ? plural(own.rows, "row") : "–");
  say(cells[8], percent(own?.task_accuracy));
  if (version.version !== null) show(cells[9].firstChild, version.state !== "live");
}

function reliability() {
  const measured = figures.reliability;
  const series = [{ hue: "c0", points: measured.bins.map((bin) => [bin.confidence, bin.accuracy]), marks: true }];
  const entries = [["c0", "measured before the release", `ECE ${measured.ece.toFixed(3)}`]];
  const told = feedback?.task_reliability ?? [];
  const most = Math.max(...told.map((bin) => bin.rows));
  if (told.length) {
    series.push({ hue: "c2", points: told.map((bin) => [bin.confidence, bin.accuracy, bin.rows / most]), dots: true });
    entries.push(["c2", "your feedback, by size", plural(told.reduce((a, bin) => a + bin.rows, 0), "row")]);
  }
  const rows = [
    ...measured.bins.map((bin) => ["measured", percent(bin.confidence), percent(bin.accuracy), percent(bin.share)]),
    ...told.map((bin) => ["feedback", percent(bin.confidence), percent(bin.accuracy), plural(bin.rows, "row")]),
  ];
  put(
    $("reliability"),
    lines({
      label: `Accuracy against confidence in ${measured.bins.length} bins; the expected calibration error is ${measured.ece.toFixed(3)}`,
      width: widthOf($("reliability")),
      x: share(), y: share(), series, ideal: [[0, 0], [1, 1]],
    }),
    legend(entries),
    source(measured.source),
    table(["From", "Confidence", "Accuracy", "Share"], rows),
  );
}

function coverage() {
  const measured = figures.coverage_risk;
  const points = measured.points.map((point) => [point.coverage, point.risk]);
  const here = measured.abstention;
  const top = Math.ceil(Math.max(...points.map(([, risk]) => risk)) * 20) / 20;
  put(
    $("coverage"),
    lines({
      label: `Share of wrong tasks against the share of requests answered; as shipped ${percent(here.coverage)} are answered, ${percent(here.risk)} of them wrongly`,
      width: widthOf($("coverage")),
      x: share(), y: { from: 0, to: top, tell: (value) => percent(value) },
      series: [
        { hue: "c0", points },
        { hue: "c2", points: [[here.coverage, here.risk]], dots: true },
      ],
    }),
    legend([["c0", "at every threshold"], ["c2", "as shipped", `${percent(here.coverage)} answered, ${percent(here.risk)} of them wrong`]]),
    source(measured.source),
    table(["Threshold", "Answered", "Wrong of these"], measured.points.map((p) => [p.threshold.toFixed(2), percent(p.coverage), percent(p.risk)])),
  );
}

function cost() {
  const whole = widthOf($("cost"));
  const width = whole > TWO_COLUMNS ? (whole - GAP) / 2 : whole;
  const parts = figures.cost_quality.tasks.map(({ task, cascade, threshold, always_probe: probe, always_llm: llm }) => {
    const all = [...cascade, ...threshold, probe, llm].map(([, quality]) => quality);
    const from = Math.floor(Math.min(...all) * 10) / 10;
    const to = Math.ceil(Math.max(...all) * 10) / 10;
    return h(
      "figure",
      {},
      h("h3", {}, task),
      lines({
        label: `${task}: right answers against calls of the LLM. Probe alone ${percent(probe[1], 0)}, LLM alone ${percent(llm[1], 0)}`,
        width,
        height: 230,
        x: share(), y: { from, to, tell: (value) => percent(value, 0) },
        series: [
          { hue: "c6", points: sorted(threshold) },
          { hue: "c0", points: sorted(cascade), marks: true },
          { hue: "c1", points: [probe], dots: true },
          { hue: "c2", points: [llm], dots: true },
        ],
      }),
    );
  });
  const own = (feedback?.by_version ?? []).filter((version) => version.answers_judged > 0);
  put(
    $("cost"),
    h("div", { class: "figures" }, parts),
    legend([["c0", "the router, at several prices"], ["c6", "a threshold on the probe"], ["c1", "probe alone"], ["c2", "LLM alone"]]),
    source(figures.cost_quality.source),
    h("h3", {}, "Your feedback"),
    own.length
      ? h(
          "div",
          { class: "scroll", tabindex: "0", role: "group", "aria-label": "Cost and quality by version, from feedback" },
          h(
            "table",
            {},
            h("thead", {}, h("tr", {}, ["Version", "Answers judged", "Right", "Cost of a request"].map((name) => h("th", { scope: "col" }, name)))),
            h(
              "tbody",
              {},
              own.map((version) =>
                h("tr", {}, [named(version.version), count(version.answers_judged), percent(version.answer_accuracy), version.mean_cost.toFixed(2)].map((cell) => h("td", {}, cell))),
              ),
            ),
          ),
        )
      : h("p", { class: "hint" }, "No answer was judged yet. Send feedback from the playground, or POST /api/v1/feedback."),
  );
}

const sorted = (points) => [...points].sort((a, b) => a[0] - b[0]);

function share() {
  return { from: 0, to: 1, ticks: [0, 0.25, 0.5, 0.75, 1], tell: (value) => percent(value, 0) };
}

function source({ file, command, note }) {
  return h("p", { class: "source" }, `Measured on the weights that ship with MoLE, not on this coordinator: ${file}, by `, h("code", {}, command), note ? `. ${note}` : ".");
}

// Asks before something that every coordinator follows.
function confirmed(title, text, yes) {
  const dialog = $("confirm");
  say($("confirm-title"), title);
  say($("confirm-text"), text);
  say($("confirm-yes"), yes);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

async function change(path, version, done) {
  try {
    const { live } = await ask(path, { method: "POST", body: { version } });
    say($("version-changes"), done(live === null ? "the shipped weights are" : `version ${live} is`));
    notice(null);
  } catch (problem) {
    notice(problem.message);
  }
  again();
}

async function promote(version) {
  const text = "Every coordinator takes it within seconds, whatever the judges said of it. The live one retires.";
  if (await confirmed(`Let version ${version} go live?`, text, `Promote version ${version}`)) {
    await change("/api/v1/router/promote", version, (live) => `${live} live`);
  }
}

$("rollback").addEventListener("click", async () => {
  const { version } = versions.versions.find((one) => one.state === "live");
  const text = "The version live before it is live again, else the shipped weights. It counts as rejected, and can be promoted again.";
  if (await confirmed(`Take version ${version} back?`, text, `Take version ${version} back`)) {
    await change("/api/v1/router/rollback", version, (live) => `${live} live again`);
  }
});

window.addEventListener("resize", () => {
  drawn = "";
  draw();
});

figures = await (await fetch(new URL("./figures.json", import.meta.url))).json();
const again = poll(look, LOOK_MS);
poll(lookAtFeedback, FEEDBACK_MS);
