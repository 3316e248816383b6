"""Writes docs/reference/api.md from both services' OpenAPI documents, or checks that it is up to date."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from app.main import create_app
from expert_worker.main import create_app as create_worker
from scripts.pages import ROOT, main

TARGET = ROOT / "docs" / "reference" / "api.md"
HEAD = """# API

This page is made from the services' OpenAPI documents by `make docs`; a running service has the document at
`/openapi.json`, and a page to try it at `/docs`. Errors are [problem details](https://www.rfc-editor.org/rfc/rfc9457)
with a stable `type`, but under `/v1` in OpenAI's form; every 429 and 5xx carries `Retry-After`.
"""
PROBLEMS = ("Problem", "ErrorAnswer")
DEEPEST = 2


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, document in (("Coordinator", create_app().openapi()), ("Worker", create_worker().openapi())):
        parts.append(f"\n## {title}\n")
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                parts.append(operation_part(f"{method.upper()} {path}", operation, document))
    return "".join(parts)


def operation_part(name: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    """One operation: what it does, what is sent, what comes back."""
    lines = [f"\n### {name}\n\n**{operation['summary']}.** {operation.get('description', '')}\n"]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body is not None:
        lines.append(f"\nSent:\n\n{table(body, document)}")
    codes = []
    for code, response in operation["responses"].items():
        content = response.get("content", {}).get("application/json", {}).get("schema", {})
        if int(code) < 400 and content and content.get("$ref", "").rpartition("/")[2] not in PROBLEMS:
            lines += [
                f"\n{code}{form}:\n\n{table(part, document)}" for form, part in forms(content, document)
            ]
        else:
            codes.append(f"{code} {response['description']}")
    lines.append(f"\nOthers: {'; '.join(codes)}.\n" if codes else "")
    return "".join(lines)


def forms(schema: dict[str, Any], document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The schema; or, of several that an answer may have, each with its first sentence."""
    if "anyOf" not in schema:
        return [("", schema)]
    told = [
        resolved(choice, document).get("description", "").partition("\n")[0] for choice in schema["anyOf"]
    ]
    return [(f" ({text})", choice) for text, choice in zip(told, schema["anyOf"], strict=True)]


def table(schema: dict[str, Any], document: dict[str, Any]) -> str:
    """The members as a table."""
    rows = "".join(
        f"| `{name}` | {kind} | {text} |\n" for name, kind, text in members(schema, document, "", 0)
    )
    return f"| member | type | meaning |\n|---|---|---|\n{rows}" if rows else "Anything.\n"


def members(
    schema: dict[str, Any], document: dict[str, Any], prefix: str, depth: int
) -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of each member, those within members too."""
    found = resolved(schema, document)
    required = found.get("required", [])
    for name, member in found.get("properties", {}).items():
        text = member.get("description", "")
        if "default" in member and member["default"] is not None:
            text += f" Default `{member['default']}`."
        mark = "" if name in required or prefix or depth else "?"
        yield f"{prefix}{name}{mark}", kind(member, document), text.replace("|", "\\|").strip()
        inner, ending = inside(member, document)
        if inner is not None and depth < DEEPEST:
            yield from members(inner, document, f"{prefix}{name}{ending}.", depth + 1)


def inside(member: dict[str, Any], document: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The object that a member is or lists."""
    for choice in [member, *member.get("anyOf", [])]:
        for candidate, ending in ((choice, ""), (choice.get("items", {}), "[]")):
            if "$ref" in candidate and "properties" in resolved(candidate, document):
                return candidate, ending
    return None, ""


def kind(member: dict[str, Any], document: dict[str, Any]) -> str:
    """A type in a few words."""
    if "$ref" in member:
        target = resolved(member, document)
        return kind(target, document) if "properties" not in target else "object"
    if "anyOf" in member:
        return " or ".join(dict.fromkeys(kind(choice, document) for choice in member["anyOf"]))
    if "enum" in member:
        return " or ".join(f"`{value}`" for value in member["enum"])
    if "const" in member:
        return f"`{member['const']}`"
    if member.get("type") == "array":
        return f"list of {kind(member.get('items', {}), document)}"
    return str(member.get("type", "any"))


def resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """The schema that a reference names."""
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"][name] if name else schema
    return found


if __name__ == "__main__":
    sys.exit(main({TARGET: page()}, __doc__))
