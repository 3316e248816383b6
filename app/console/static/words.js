// Numbers, times and languages as people read them.

const THIN = "\u202f";
const names = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" });
const whole = new Intl.NumberFormat("en");

export const count = (value) => whole.format(value);

export function percent(share, digits = 1) {
  if (share === null || share === undefined) return "–";
  return `${(share * 100).toFixed(digits)}${THIN}%`;
}

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return `0${THIN}ms`;
  if (value < 10) return `${value.toFixed(value < 1 ? 2 : 1)}${THIN}ms`;
  if (value < 1000) return `${value.toFixed(0)}${THIN}ms`;
  return `${(value / 1000).toFixed(value < 10000 ? 2 : 1)}${THIN}s`;
}

export function duration(seconds) {
  const all = Math.max(0, Math.round(seconds));
  if (all < 60) return `${all}${THIN}s`;
  if (all < 3600) return `${Math.floor(all / 60)}${THIN}min ${String(all % 60).padStart(2, "0")}${THIN}s`;
  return `${Math.floor(all / 3600)}${THIN}h ${String(Math.floor((all % 3600) / 60)).padStart(2, "0")}${THIN}min`;
}

export function language(code) {
  if (!code || code === "und") return "not told";
  try {
    return names.of(code) ?? code;
  } catch {
    return code;
  }
}

export function clock(value) {
  return new Date(value).toLocaleTimeString("en-GB");
}

export function moment(value) {
  const at = new Date(value);
  const day = at.toDateString() === new Date().toDateString() ? "" : `${at.toLocaleDateString("en-CA")} `;
  return `${day}${at.toLocaleTimeString("en-GB")}`;
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
