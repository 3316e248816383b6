// Reads a job's results: the first of them to look at, or all as a file.

import { ask } from "./api.js";
import { csvLine } from "./csv.js";

// The first results, up to `most`; the rest of the stream is not read.
export async function firstResults(jobId, most) {
  const found = [];
  const leave = new AbortController();
  const response = await ask(`/api/v1/jobs/${jobId}/results`, { raw: true, signal: leave.signal });
  for await (const line of lines(response.body)) {
    found.push(JSON.parse(line));
    if (found.length === most) break;
  }
  leave.abort();
  return found;
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const pieces = (rest + value).split("\n");
    rest = pieces.pop();
    yield* pieces;
  }
  if (rest) yield rest;
}

export async function saveLines(jobId) {
  const response = await ask(`/api/v1/jobs/${jobId}/results`, { raw: true });
  save(await response.blob(), `${jobId}.jsonl`);
}

export async function saveTable(jobId) {
  const response = await ask(`/api/v1/jobs/${jobId}/results`, { raw: true });
  const pieces = [csvLine(["index", "result", "confidence", "task", "language", "abstained", "entities", "error"])];
  for await (const line of lines(response.body)) {
    const row = JSON.parse(line);
    pieces.push(
      csvLine([
        row.index, row.result, row.confidence, row.task, row.language, row.abstained?.reason,
        row.entities ? JSON.stringify(row.entities) : null, row.error?.detail,
      ]),
    );
  }
  save(new Blob(pieces, { type: "text/csv;charset=utf-8" }), `${jobId}.csv`);
}

// By a link to an object URL: a plain link could not carry the key.
function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
