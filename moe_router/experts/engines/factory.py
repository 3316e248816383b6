"""The one place that chooses an engine for a base model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moe_router.assets.base_model import ensure_base_model
from moe_router.assets.cache import Progress
from moe_router.experts.engines.base import Engine, OutOfMemoryError
from moe_router.experts.memory import reclaim
from moe_router.registry import BaseModelSpec

if TYPE_CHECKING:
    from moe_router.experts.engines.transformers import TransformersEngine

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to run an engine.

    Attributes:
        cache_dir: keeps converted models.
        max_text_tokens: longer values are cut off at their end.
        num_threads: CPU threads of one pass; None leaves it to torch.
        api_key: for a model server.
        require_4bit: whether a model that asks for 4 bits is refused where they cannot be had.
    """

    cache_dir: Path
    max_text_tokens: int = 2048
    num_threads: int | None = None
    api_key: str | None = None
    require_4bit: bool = False


def make_engine(spec: BaseModelSpec, options: EngineOptions, progress: Progress | None = None) -> Engine:
    """Loads the base model; blocks for seconds to minutes.

    Raises:
        ModelAssetError: the model cannot be had, loaded, or served.
        ServerAwayError: it is at a model server, which does not answer.
    """
    if spec.engine == "openai":
        from moe_router.experts.engines.openai import OpenAIEngine
        from moe_router.experts.engines.text_tokens import TextTokens

        tokens = TextTokens(options.max_text_tokens)
        return OpenAIEngine(str(spec.base_url), spec.hf_name, tokens, options.api_key)
    source = ensure_base_model(spec.hf_name, options.cache_dir, _part(progress, 0.0, 0.5))
    import torch  # here, so that importing the pools is quick

    from moe_router.experts.engines.cpu_products import prefer_onednn
    from moe_router.experts.engines.loading import context_length, load_model
    from moe_router.experts.engines.tokens import HfTokens
    from moe_router.experts.engines.transformers import TransformersEngine

    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        prefer_onednn()
    if progress is not None:
        progress("loading the base model", 0.5)

    def load() -> TransformersEngine:
        model, tokenizer = load_model(source, spec, require_4bit=options.require_4bit)
        return TransformersEngine(model, HfTokens(tokenizer, options.max_text_tokens, context_length(model)))

    engine = load()
    if on_cpu and spec.torch_dtype == "auto" and not _use_bfloat16(engine, spec.hf_name):
        engine.close()
        del engine
        reclaim()
        engine = load()
    if progress is not None:
        progress("base model loaded", 1.0)
    return engine


_float32_alone: set[str] = set()
"""Models that are not right otherwise, as one load has shown."""


def _use_bfloat16(engine: TransformersEngine, name: str) -> bool:
    """Lets products be in bfloat16 where they may; False where that has spoilt the model.

    Raises:
        OutOfMemoryError: there is no room for a pass.
    """
    try:
        told = "bfloat16" if name not in _float32_alone and engine.use_bfloat16() else "float32"
    except OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001  whatever a model makes of what it does not know
        # Told as text: whoever keeps the record must not keep the error's frames, which hold the model.
        logger.warning("%s is loaded once more, for products in float32: %s", name, str(error))
        _float32_alone.add(name)
        return False
    logger.info("%s: products in %s", name, told)
    return True


def _part(progress: Progress | None, start: float, end: float) -> Progress | None:
    if progress is None:
        return None
    return lambda message, fraction: progress(message, start + (end - start) * fraction)
