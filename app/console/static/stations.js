// The route of a request, drawn as a line of stations, and where its time went.

import { h } from "./dom.js";
import { language, milliseconds, percent } from "./words.js";

const TITLES = { language: "Language", domain: "Domain", task: "Task", probe: "Probe", hedge: "Asked as well", expert: "Expert" };
const PARTS = ["language", "encode", "domain", "task", "worker"];

export function classifyRoute(answer) {
  const stations = answer.routing_path.map(station);
  if (answer.worker_id) {
    stations.push({ what: "Worker", choice: answer.worker_id, sub: answer.model_key, ms: answer.timings_ms.worker });
  }
  if (answer.abstained) stations.push({ what: "End", choice: "abstained", sub: answer.abstained.reason, stop: true });
  return [line(stations), times(answer.timings_ms)];
}

export function decidedRoute(answer) {
  const timings = answer.timings_ms;
  const domain = answer.domain ?? best(answer.domain_probabilities);
  const stations = [
    station({ step: "language", choice: answer.language, probability: answer.language_probability, ms: timings.language }),
    { what: "Domain", choice: domain ?? "none", probability: answer.domain_probabilities[domain], ms: timings.domain },
    { what: "Task", choice: answer.task ?? "none", probability: answer.confidence, ms: timings.task },
  ];
  if (answer.expert) {
    stations.push({ what: "Expert", choice: answer.expert.adapter_name ?? answer.expert.model_key, sub: answer.expert.model_key });
  }
  stations.push(
    answer.abstained
      ? { what: "End", choice: "abstained", sub: answer.abstained.reason, stop: true }
      : { what: "Workers to ask", choice: answer.candidates.join(", ") || "none can be reached", stop: !answer.candidates.length },
  );
  return [line(stations), times(timings)];
}

function station({ step, choice, probability, ms }) {
  const spoken = step === "language" ? language(choice) : (choice ?? "none");
  return { what: TITLES[step] ?? step, choice: spoken, sub: step === "language" && choice ? choice : null, probability, ms };
}

function best(probabilities) {
  return Object.keys(probabilities).reduce((a, b) => (probabilities[a] >= probabilities[b] ? a : b), undefined);
}

function line(stations) {
  return h(
    "ol",
    { class: "stations" },
    stations.map((one) =>
      h(
        "li",
        { class: one.stop ? "stop" : null },
        h("div", { class: "what" }, one.what),
        h("div", { class: "choice" }, one.choice),
        one.sub && one.sub !== one.choice ? h("div", { class: "sub" }, one.sub) : null,
        h(
          "div",
          { class: "figures" },
          one.probability === null || one.probability === undefined ? null : h("b", {}, percent(one.probability)),
          one.ms === null || one.ms === undefined ? null : h("span", {}, milliseconds(one.ms)),
        ),
      ),
    ),
  );
}

function times(timings) {
  const known = PARTS.map((name, index) => ({ name, index, ms: timings[name] }));
  const rest = Math.max(timings.total - known.reduce((sum, part) => sum + part.ms, 0), 0);
  const parts = [...known, { name: "the rest", index: 6, ms: rest }].filter((part) => part.ms > 0);
  return [
    h("div", { class: "times", "aria-hidden": "true" }, parts.map((p) => h("i", { class: `c${p.index}`, vars: { "--ms": p.ms } }))),
    h(
      "ul",
      { class: "legend", "aria-label": `Time, ${milliseconds(timings.total)} in all` },
      parts.map((p) => h("li", {}, h("i", { class: `c${p.index}` }), `${p.name} `, h("b", {}, milliseconds(p.ms)))),
    ),
  ];
}
