// The last hour, drawn anew every few seconds.

import { ask } from "./api.js";
import { columns, legend, lines, roundUp, table, widthOf } from "./charts.js";
import { $, h, keyed, put, say, show } from "./dom.js";
import { poll } from "./poll.js";
import { clock, count, language, milliseconds, percent } from "./words.js";

const LOOK_MS = 5000;
const NAMED = 5;
const MOST_COLUMNS = 90;
const OTHERS = "others";
let minutes = 60;
let last = null;
let process = null;
let drawn = "";

async function look() {
  last = await ask("/api/v1/stats/traffic");
  if (process !== null && process !== last.process) {
    say($("process-note"), "Several processes answer here in turn, or it was restarted: each counts for itself, so these figures change with whoever answers.");
    show($("process-note"), true);
  }
  process = last.process;
  draw();
}

// The answer's buckets joined to columns wide enough to see, the newest last.
function joined() {
  const size = Math.max(1, Math.ceil((minutes * 60) / last.bucket_seconds / MOST_COLUMNS));
  const step = size * last.bucket_seconds;
  const until = Math.ceil(Date.parse(last.until) / 1000 / step) * step;
  const from = until - minutes * 60;
  const groups = new Map();
  for (const bucket of last.buckets) {
    const at = Math.floor(Date.parse(bucket.at) / 1000 / step) * step;
    if (at < from) continue;
    groups.set(at, [...(groups.get(at) ?? []), bucket]);
  }
  return { from, until, step, columns: [...groups].map(([at, buckets]) => ({ at, buckets })) };
}

const sum = (buckets, member) => buckets.reduce((total, bucket) => total + bucket[member], 0);

function tally(buckets, member) {
  const found = new Map();
  for (const bucket of buckets) {
    for (const [name, number] of Object.entries(bucket[member])) found.set(name, (found.get(name) ?? 0) + number);
  }
  return found;
}

function draw() {
  const view = joined();
  const buckets = view.columns.flatMap((column) => column.buckets);
  const state = JSON.stringify([minutes, view.until, buckets]);
  if (state === drawn) return; // an open table of numbers stays open
  drawn = state;
  tiles(buckets);
  const x = {
    from: view.from,
    to: view.until,
    ticks: [0.125, 0.375, 0.625, 0.875].map((share) => view.from + share * (view.until - view.from)),
    tell: (at) => clock(at * 1000).slice(0, 5),
  };
  requests(view, x);
  latency(view, x);
  named($("languages"), view, x, "languages", language);
  named($("tasks"), view, x, "tasks", (name) => name);
}

function tiles(buckets) {
  const total = sum(buckets, "requests");
  const errors = sum(buckets, "failed");
  const answers = sum(buckets, "answers");
  const slow = buckets.filter((bucket) => bucket.p95_ms !== null).map((bucket) => bucket.p95_ms);
  const figures = [
    ["Requests", count(total)],
    ["Server errors", total ? percent(errors / total) : "–"],
    ["Texts answered", count(answers)],
    ["Abstained", answers ? percent(sum(buckets, "abstained") / answers) : "–"],
    ["Highest p95", slow.length ? milliseconds(Math.max(...slow)) : "–"],
  ];
  keyed(
    $("tiles"),
    figures,
    ([name]) => name,
    ([name]) => h("div", { class: "tile" }, h("dt", {}, name), h("dd")),
    (tile, [, value]) => say(tile.lastChild, value),
  );
}

function stacked(element, view, x, label, hues, parts) {
  const all = view.columns.map((column) => ({ x: column.at, parts: parts(column) }));
  const most = Math.max(...all.map((column) => column.parts.reduce((a, b) => a + b, 0)), 1);
  const y = { from: 0, to: 4 * Math.max(roundUp(most / 4), 1), tell: count }; // four whole steps
  return columns({ label, width: widthOf(element), x, y, hues, columns: all, step: view.step });
}

function requests(view, x) {
  if (!view.columns.length) return empty($("requests"));
  const parts = (column) => {
    const [all, refused, failed] = ["requests", "refused", "failed"].map((member) => sum(column.buckets, member));
    return [all - refused - failed, refused, failed];
  };
  const hues = ["c0", "cwarn", "cbad"];
  const totals = view.columns.map(parts).reduce((a, b) => a.map((value, index) => value + b[index]), [0, 0, 0]);
  const names = ["answered", "refused (4xx)", "failed (5xx)"];
  put(
    $("requests"),
    stacked($("requests"), view, x, `Requests over time: ${names.map((name, i) => `${count(totals[i])} ${name}`).join(", ")}`, hues, parts),
    legend(names.map((name, index) => [hues[index], name, count(totals[index])])),
    table(["From", ...names], view.columns.map((column) => [clock(column.at * 1000), ...parts(column).map(count)])),
  );
}

function latency(view, x) {
  const known = view.columns.filter((column) => sum(column.buckets, "requests") > 0);
  if (!known.length) return empty($("latency"));
  const worst = (column, member) => Math.max(...column.buckets.map((bucket) => bucket[member] ?? 0));
  const top = Math.max(...known.map((column) => worst(column, "p95_ms")));
  const points = (member) => known.map((column) => [column.at + view.step / 2, worst(column, member)]);
  const marks = known.length < 40;
  const series = [
    { hue: "c1", points: points("p95_ms"), marks },
    { hue: "c0", points: points("p50_ms"), marks },
  ];
  put(
    $("latency"),
    lines({
      label: `Median and 95th percentile of the requests' durations; the highest is ${milliseconds(top)}`,
      width: widthOf($("latency")),
      height: 210,
      x,
      y: { from: 0, to: roundUp(top), tell: milliseconds },
      series,
    }),
    legend([["c0", "median"], ["c1", "95th percentile"]]),
    table(
      ["From", "median", "95th percentile"],
      known.map((column) => [clock(column.at * 1000), milliseconds(worst(column, "p50_ms")), milliseconds(worst(column, "p95_ms"))]),
    ),
  );
}

function named(element, view, x, member, tell) {
  const totals = [...tally(view.columns.flatMap((column) => column.buckets), member)].sort((a, b) => b[1] - a[1]);
  if (!totals.length) return empty(element);
  const first = totals.slice(0, NAMED).map(([name]) => name);
  const rest = totals.slice(NAMED).reduce((total, [, number]) => total + number, 0);
  const names = rest ? [...first, OTHERS] : first;
  const hues = names.map((name, index) => (name === OTHERS ? "c6" : `c${index}`));
  const parts = (column) => {
    const found = tally(column.buckets, member);
    const own = first.map((name) => found.get(name) ?? 0);
    const all = [...found.values()].reduce((a, b) => a + b, 0);
    return rest ? [...own, all - own.reduce((a, b) => a + b, 0)] : own;
  };
  const figures = names.map((name) => (name === OTHERS ? rest : totals.find(([own]) => own === name)[1]));
  const spoken = names.map((name) => (name === OTHERS ? OTHERS : tell(name)));
  put(
    element,
    stacked(element, view, x, `Answers over time by ${member}: ${spoken.map((name, i) => `${name} ${count(figures[i])}`).join(", ")}`, hues, parts),
    legend(spoken.map((name, index) => [hues[index], name, count(figures[index])])),
    table([member, "answers"], totals.map(([name, number]) => [tell(name), count(number)])),
  );
}

function empty(element) {
  put(element, h("p", { class: "empty" }, "Nothing was asked in this time."));
}

for (const button of document.querySelectorAll("[data-minutes]")) {
  button.addEventListener("click", () => {
    minutes = Number(button.dataset.minutes);
    for (const other of document.querySelectorAll("[data-minutes]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    if (last) draw();
  });
}

window.addEventListener("resize", () => {
  drawn = "";
  if (last) draw();
});

poll(look, LOOK_MS);
