// A request as code to copy.

export function curl(origin, request, withKey) {
  const lines = [`curl -s ${origin}/api/v1/classify`, "  -H 'Content-Type: application/json'"];
  if (withKey) lines.push('  -H "Authorization: Bearer $MOLE_API_KEY"');
  lines.push(`  -d '${JSON.stringify(request, null, 2).replaceAll("'", "'\\''")}'`);
  return lines.join(" \\\n");
}

export function python(origin, request, withKey) {
  const given = [literal(request.text)];
  if (request.description !== undefined) given.push(literal(request.description));
  if (request.fields) given.push(`fields=${dictionary(request.fields)}`);
  for (const [name, value] of Object.entries(request.options)) given.push(`${name}=${literal(value)}`);
  const address = withKey
    ? `Mole(${literal(origin)}, api_key=os.environ["MOLE_API_KEY"])`
    : `Mole(${literal(origin)})`;
  return [
    ...(withKey ? ["import os", ""] : []),
    "from mole import Mole",
    "",
    `with ${address} as mole:`,
    "    answer = mole.classify(",
    ...given.map((argument) => `        ${argument},`),
    "    )",
    "    print(answer.task, answer.result, answer.confidence)",
  ].join("\n");
}

// A JSON string is a Python string, too; lone surrogates are escaped in both.
function literal(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  return JSON.stringify(value);
}

function dictionary(fields) {
  const pairs = Object.entries(fields).map(([name, value]) => `${literal(name)}: ${literal(value)}`);
  return `{${pairs.join(", ")}}`;
}
