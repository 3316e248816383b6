"""The one place that chooses an engine for a base model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from moe_router.assets.base_model import ensure_base_model
from moe_router.assets.cache import Progress
from moe_router.errors import ModelAssetError
from moe_router.experts.engines.base import Engine
from moe_router.registry import BaseModelSpec

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
    from moe_router.experts.engines.loading import load_model
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
        return TransformersEngine(model, HfTokens(tokenizer, options.max_text_tokens))

    engine = load()
    if on_cpu and spec.torch_dtype == "auto":
        try:
            told = "bfloat16" if engine.use_bfloat16() else "float32"
        except ModelAssetError as error:
            logger.warning("%s: %s", spec.hf_name, error)
            engine.close()
            engine, told = load(), "float32"
        logger.info("%s: products in %s by %d threads", spec.hf_name, told, torch.get_num_threads())
    if progress is not None:
        progress("base model loaded", 1.0)
    return engine


def _part(progress: Progress | None, start: float, end: float) -> Progress | None:
    if progress is None:
        return None
    return lambda message, fraction: progress(message, start + (end - start) * fraction)
