// An answer of /classify or /route as people want to see it.

import { h } from "./dom.js";
import { milliseconds, percent } from "./words.js";

const SHOWN = 8;
const HUES = 6;
const REASONS = {
  unknown_language: "The language cannot be told",
  out_of_scope: "Nothing here answers that",
  low_confidence: "Not sure enough to answer",
  expert_unavailable: "No worker serves this task",
};

export function answerView(answer, text, retry) {
  const view = answer.abstained
    ? abstention(answer.abstained, answer.confidence, retry)
    : [headline(answer), answer.entities ? entityView(text, answer.entities) : bars(answer.probabilities, answer.result)];
  return [view, footnote(answer.request_id, answer.timings_ms.total)];
}

export function routeView(answer, retry) {
  const view = answer.abstained
    ? abstention(answer.abstained, answer.confidence, retry)
    : [
        h(
          "p",
          { class: "result" },
          h("strong", {}, answer.task),
          h("span", { class: "sure" }, h("b", {}, percent(answer.confidence)), " that this is asked"),
        ),
        h("p", { class: "under" }, "Only decided: no expert was called."),
      ];
  return [view, bars(answer.task_probabilities, answer.task), footnote(answer.request_id, answer.timings_ms.total)];
}

function headline(answer) {
  const found = answer.entities;
  const title = found ? (found.length ? `${found.length} found` : "Nothing found") : answer.result;
  return [
    h(
      "p",
      { class: "result" },
      h("strong", {}, title),
      h("span", { class: "sure" }, h("b", {}, percent(answer.confidence)), " sure"),
    ),
    h("p", { class: "under" }, answer.task),
  ];
}

function footnote(requestId, total) {
  return h("p", { class: "hint footnote" }, `${milliseconds(total)} in all, request `, h("span", { class: "mono" }, requestId));
}

export function bars(probabilities, best) {
  if (!probabilities) return null;
  const ranked = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  const line = ([label, share]) =>
    h(
      "li",
      { class: label === best ? "best" : null },
      h("span", { dir: "auto" }, label),
      h("span", { class: "bar-track", "aria-hidden": "true" }, h("i", { vars: { "--share": share } })),
      h("span", { class: "num" }, percent(share)),
    );
  const rest = ranked.slice(SHOWN);
  return [
    h("ul", { class: "bars", "aria-label": "Calibrated probabilities" }, ranked.slice(0, SHOWN).map(line)),
    rest.length
      ? h("details", { class: "more" }, h("summary", {}, `${rest.length} more`), h("ul", { class: "bars" }, rest.map(line)))
      : null,
  ];
}

function abstention(abstained, confidence, retry) {
  return [
    h(
      "div",
      { class: "abstained" },
      h("strong", {}, REASONS[abstained.reason] ?? "No answer"),
      h("p", {}, abstained.detail),
      h("p", { class: "hint" }, `${abstained.reason}, confidence ${percent(confidence)}. MoLE abstains instead of guessing.`),
    ),
    abstained.nearest_tasks.length
      ? [
          h("h3", {}, "Ask it anyway as one of the nearest tasks"),
          h(
            "div",
            { class: "near" },
            abstained.nearest_tasks.map((task) =>
              h("button", { type: "button", class: "small", click: () => retry(task) }, task),
            ),
          ),
        ]
      : null,
  ];
}

// Offsets count code points, as the contract says; a string of JavaScript counts UTF-16 units.
function entityView(text, entities) {
  const points = Array.from(text);
  const types = [...new Set(entities.map((entity) => entity.type))];
  const pieces = [];
  let at = 0;
  for (const entity of [...entities].sort((a, b) => a.start - b.start || b.end - a.end)) {
    if (entity.start < at) continue; // lies within the one before; the list has it
    pieces.push(points.slice(at, entity.start).join(""));
    pieces.push(
      h(
        "mark",
        { class: `c${types.indexOf(entity.type) % HUES}` },
        h("span", {}, points.slice(entity.start, entity.end).join("")),
        h("bdi", {}, entity.type), // isolated, so that the text alone gives the direction
      ),
    );
    at = entity.end;
  }
  pieces.push(points.slice(at).join(""));
  return [
    h("div", { class: "marked", dir: "auto" }, pieces),
    entities.length
      ? h(
          "ul",
          { class: "bars", "aria-label": "Entities" },
          entities.map((entity) =>
            h(
              "li",
              { class: "best" },
              h("span", {}, h("bdi", {}, entity.value), h("span", { class: "hint" }, ` ${entity.type}`)),
              h("span", { class: "bar-track", "aria-hidden": "true" }, h("i", { vars: { "--share": entity.confidence } })),
              h("span", { class: "num" }, percent(entity.confidence)),
            ),
          ),
        )
      : null,
  ];
}
