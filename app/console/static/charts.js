// Charts drawn as SVG from plain numbers, each with a table of the same numbers for whoever reads no pictures.

import { h, svg } from "./dom.js";

const FALLBACK = 600;
const NARROWEST = 260;
const LEFT = 44;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 26;

// The width to draw at, so that a chart's letters are as large as any others on the page.
export function widthOf(element) {
  return Math.max(element.clientWidth || FALLBACK, NARROWEST);
}

// A round number at or above a value, so that the axis ends well.
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

function frame({ label, width, height, x, y }) {
  const inner = { width: width - LEFT - RIGHT, height: height - TOP - BOTTOM };
  const toX = (value) => LEFT + ((value - x.from) / (x.to - x.from)) * inner.width;
  const toY = (value) => TOP + inner.height - ((value - y.from) / (y.to - y.from)) * inner.height;
  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (let step = 0; step <= 4; step += 1) {
    const value = y.from + ((y.to - y.from) * step) / 4;
    picture.append(
      svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: toY(value), y2: toY(value) }),
      svg("text", { x: LEFT - 8, y: toY(value) + 4, "text-anchor": "end" }, y.tell(value)),
    );
  }
  for (const value of x.ticks) {
    picture.append(svg("text", { x: toX(value), y: height - 8, "text-anchor": "middle" }, x.tell(value)));
  }
  return { picture, toX, toY };
}

// Lines with marks; series: [{ name, hue, points: [[x, y, weight?]] , dots? }].
export function lines({ label, width, height = 300, x, y, series, ideal }) {
  const { picture, toX, toY } = frame({ label, width, height, x, y });
  if (ideal) {
    const [[x1, y1], [x2, y2]] = ideal;
    picture.append(svg("line", { class: "ideal", x1: toX(x1), y1: toY(y1), x2: toX(x2), y2: toY(y2) }));
  }
  for (const one of series) {
    const group = svg("g", { class: one.hue });
    if (!one.dots && one.points.length > 1) {
      const path = one.points.map(([px, py]) => `${toX(px).toFixed(1)} ${toY(py).toFixed(1)}`).join("L");
      group.append(svg("path", { class: "line", d: `M${path}` }));
    }
    if (one.dots || one.marks) {
      for (const [px, py, weight] of one.points) {
        const radius = weight === undefined ? (one.dots ? 5 : 3) : 3 + 6 * Math.sqrt(weight);
        group.append(svg("circle", { class: "mark", cx: toX(px), cy: toY(py), r: radius }));
      }
    }
    picture.append(group);
  }
  return picture;
}

// Stacked columns; columns: [{ x, parts: [number of each series] }], each `step` wide from x on.
export function columns({ label, width, height = 210, x, y, hues, columns: all, step }) {
  const { picture, toX, toY } = frame({ label, width, height, x, y });
  const groups = hues.map((hue) => svg("g", { class: hue }));
  for (const column of all) {
    let sum = 0;
    column.parts.forEach((part, index) => {
      if (!part) return;
      const top = toY(sum + part);
      const wide = Math.max(toX(column.x + step) - toX(column.x) - 0.8, 0.8);
      groups[index].append(
        svg("rect", { class: "block", x: toX(column.x), y: top, width: wide, height: Math.max(toY(sum) - top, 0.5) }),
      );
      sum += part;
    });
  }
  picture.append(...groups);
  return picture;
}

export function legend(entries) {
  return h(
    "ul",
    { class: "legend" },
    entries.map(([hue, name, value]) =>
      h("li", {}, h("i", { class: hue }), name, value === undefined ? null : [" ", h("b", {}, value)]),
    ),
  );
}

export function table(head, rows) {
  return h(
    "details",
    { class: "data" },
    h("summary", {}, "The numbers"),
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell))))),
    ),
  );
}
