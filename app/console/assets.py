"""The console's scripts, styles and images, read once and served from memory under their version."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "static"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Assets:
    """Files by name; the version changes with any of them, so that browsers may keep them for good."""

    files: dict[str, tuple[bytes, str]]
    """body and media type"""
    version: str

    @classmethod
    def load(cls, folder: Path) -> Assets:
        """Reads a folder, which is flat, so that no path of a request ever reaches the file system."""
        files = {
            path.name: (path.read_bytes(), MEDIA_TYPES[path.suffix])
            for path in sorted(folder.iterdir())
            if path.suffix in MEDIA_TYPES
        }
        digest = hashlib.sha256()
        for name, (body, _) in files.items():
            digest.update(f"{name}\0{len(body)}\0".encode() + body)
        return cls(files, digest.hexdigest()[:12])


@cache
def assets() -> Assets:
    """Those of this package."""
    return Assets.load(FOLDER)
