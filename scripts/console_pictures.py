"""Makes the pictures of the docs from the screenshots that the browser tests left in build/screenshots."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SHOTS = ROOT / "build" / "screenshots"
TARGET = ROOT / "docs" / "pictures"
PICTURES = {
    "playground": ("playground-answer", 1170),
    "playground-rtl": ("playground-rtl-dark", 1170),
    "fleet": ("fleet-failing", 900),
    "jobs": ("jobs-results", 900),
    "traffic": ("traffic-asked", 1400),
}
"""Name of the picture: the screenshot, and how much of its height is shown, in pixels."""
MOST_BYTES = 150_000


def main() -> int:
    """1 where a screenshot is missing or a picture too large."""
    TARGET.mkdir(exist_ok=True)
    for name, (shot, height) in PICTURES.items():
        source = SHOTS / f"{shot}.png"
        if not source.is_file():
            sys.stderr.write(f"{source} is missing: run pytest tests/browser first\n")
            return 1
        target = TARGET / f"console-{name}.webp"
        with Image.open(source) as found:
            shown = found.convert("RGB").crop((0, 0, found.width, min(height, found.height)))
            shown.save(target, quality=85, method=6)
        if target.stat().st_size > MOST_BYTES:
            sys.stderr.write(f"{target} is larger than {MOST_BYTES} bytes\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
