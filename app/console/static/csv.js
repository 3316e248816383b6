// Reads CSV (RFC 4180, with the separators that spreadsheets write) and JSON Lines into columns and rows.

const SEPARATORS = [",", ";", "\t"];

export class FileProblem extends Error {}

// A file's bytes as text; a byte that is no UTF-8 would else become a question mark that nobody notices.
export function decoded(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new FileProblem("This file is not UTF-8. Save it as UTF-8, which spreadsheets call “CSV UTF-8”.");
  }
}

// { columns: [names], rows: [{ name: value }] }; values of CSV are texts, of JSON Lines anything.
export function readRows(name, text) {
  const clean = text.startsWith("\ufeff") ? text.slice(1) : text;
  const lines = /\.(jsonl|ndjson|json)$/i.test(name) || clean.trimStart().startsWith("{");
  const found = lines ? readLines(clean) : readTable(clean);
  if (!found.rows.length) throw new FileProblem("There are no rows in this file.");
  return found;
}

function readLines(text) {
  const rows = [];
  const columns = new Set();
  text.split("\n").forEach((line, index) => {
    if (!line.trim()) return;
    let row;
    try {
      row = JSON.parse(line);
    } catch {
      throw new FileProblem(`Line ${index + 1} is no JSON. JSON Lines have one object on each line.`);
    }
    if (row === null || typeof row !== "object" || Array.isArray(row)) {
      throw new FileProblem(`Line ${index + 1} is no object.`);
    }
    rows.push(row);
    for (const name of Object.keys(row)) columns.add(name);
  });
  return { columns: [...columns], rows, lines: true };
}

function readTable(text) {
  const cells = parse(text, separator(text));
  const head = cells.shift() ?? [];
  if (!head.length) head.push("");
  const columns = head.map((name, index) => name.trim() || `column ${index + 1}`);
  const twice = columns.find((name, index) => columns.indexOf(name) !== index);
  if (twice !== undefined) throw new FileProblem(`Two columns are named “${twice}”.`);
  const long = cells.findIndex((row) => row.slice(columns.length).some((cell) => cell !== ""));
  if (long >= 0) {
    throw new FileProblem(`Row ${long + 2} has ${cells[long].length} cells, but the header has ${columns.length}.`);
  }
  // A blank line is a row where there is one column, unless only such ones follow.
  while (cells.length && !cells.at(-1).length) cells.pop();
  const rows = cells
    .filter((row) => columns.length === 1 || row.length > 1 || (row.length && row[0] !== ""))
    .map((row) => Object.fromEntries(columns.map((name, index) => [name, row[index] ?? ""])));
  return { columns, rows, lines: false };
}

// The separator that the first line has most of, outside of quotes.
function separator(text) {
  const line = text.slice(0, text.search(/[\r\n]|$/)).replace(/"[^"]*"/g, "");
  const counts = SEPARATORS.map((one) => line.split(one).length);
  return SEPARATORS[counts.indexOf(Math.max(...counts))];
}

// A blank line has no cells.
export function parse(text, separatedBy) {
  const rows = [];
  let row = [];
  let at = 0;
  const end = (cell) => {
    if (cell !== null) row.push(cell);
    const sign = text[at];
    if (sign === separatedBy) at += 1;
    else {
      if (sign === "\r" && text[at + 1] === "\n") at += 1;
      at += 1;
      rows.push(row);
      row = [];
    }
    return sign === separatedBy;
  };
  let more = false; // a separator was last: one more cell follows, even at the very end
  while (at < text.length || more) {
    if (text[at] === '"') {
      const [cell, next] = quoted(text, at);
      at = next;
      if (at < text.length && text[at] !== separatedBy && text[at] !== "\n" && text[at] !== "\r") {
        throw new FileProblem(`Row ${rows.length + 1}: text after a closing quote.`);
      }
      more = end(cell);
    } else {
      const from = at;
      while (at < text.length && text[at] !== separatedBy && text[at] !== "\n" && text[at] !== "\r") at += 1;
      const blank = at === from && !row.length && text[at] !== separatedBy;
      more = end(blank ? null : text.slice(from, at));
    }
  }
  return rows;
}

function quoted(text, from) {
  const pieces = [];
  let at = from + 1;
  for (;;) {
    const next = text.indexOf('"', at);
    if (next < 0) throw new FileProblem("A quote is opened and never closed.");
    pieces.push(text.slice(at, next));
    if (text[next + 1] !== '"') return [pieces.join(""), next + 1];
    pieces.push('"');
    at = next + 2;
  }
}

// One line of CSV. A leading sign that a spreadsheet takes for a formula is kept from being one.
export function csvLine(values) {
  return values.map((value) => cell(value === null || value === undefined ? "" : String(value))).join(",") + "\r\n";
}

function cell(text) {
  const plain = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}
