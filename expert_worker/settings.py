"""The worker's settings, all from environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, SecretStr, StringConstraints, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

import moe_router

DEFAULT_ADAPTERS = Path(moe_router.__file__).parent / "experts" / "llms" / "adapters"
DEFAULT_CONFIG = Path("config")


class Settings(BaseSettings):
    """What an operator can set. A name in capitals is the environment variable."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, protected_namespaces=(), env_ignore_empty=True,
        # No variable's name begins so: else a field's bare name would be read, another service's STATE_DIR.
        env_prefix="=",
    )  # fmt: skip

    model_key: Annotated[str, StringConstraints(min_length=1)] = Field(
        validation_alias=AliasChoices("WORKER_MODEL_KEY"),
        description="Key of the base model in the registry that this worker loads.",
    )
    worker_id: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(
        "worker-0", validation_alias=AliasChoices("WORKER_ID"), description="Its name in the mapping."
    )
    config_path: Path = Field(
        DEFAULT_CONFIG,
        validation_alias=AliasChoices("CONFIG_PATH"),
        description="Folder of the registry, where EXPERT_REGISTRY_PATH is not set.",
    )
    registry_path: Path | None = Field(
        None, validation_alias=AliasChoices("EXPERT_REGISTRY_PATH"), description="The registry."
    )
    adapter_path: Path = Field(
        DEFAULT_ADAPTERS,
        validation_alias=AliasChoices("ADAPTER_PATH"),
        description="Folder that relative adapter and template paths start from.",
    )
    cache_dir: Path = Field(
        Path("~/.cache/mole"),
        validation_alias=AliasChoices("MOLE_CACHE_DIR"),
        description="Folder of models that are assembled or converted.",
    )
    hf_cache_path: Path | None = Field(
        None, validation_alias=AliasChoices("HF_CACHE_PATH"), description="Folder of models from the hub."
    )
    token: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("MOLE_WORKER_TOKEN"),
        description="Bearer token that callers of /expert/… must send; none where unset.",
    )
    engine_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("MOLE_ENGINE_API_KEY"),
        description="Bearer token for the model server of a base model whose engine is `openai`.",
    )
    request_timeout_s: float = Field(
        120.0,
        gt=0,
        le=3600,
        validation_alias=AliasChoices("REQUEST_TIMEOUT_SECONDS"),
        description="Bound on one request, in seconds, where the caller sends no shorter one.",
    )
    max_concurrent: int = Field(
        1,
        ge=1,
        le=64,
        validation_alias=AliasChoices("MAX_CONCURRENT_GPU_REQUESTS"),
        description="Batches in flight on the device.",
    )
    max_queue: int = Field(
        512,
        ge=1,
        validation_alias=AliasChoices("MOLE_MAX_QUEUE"),
        description="Requests that may wait, long texts counted as several; one more is refused with 503.",
    )
    max_batch_tokens: int = Field(
        1024,
        ge=64,
        validation_alias=AliasChoices("MOLE_MAX_BATCH_TOKENS"),
        description="Bound on the tokens of one batch; a quarter more if that takes all.",
    )
    num_threads: int | None = Field(
        None,
        ge=1,
        validation_alias=AliasChoices("MOLE_NUM_THREADS"),
        description="CPU threads of one forward pass; the library's choice where unset.",
    )
    require_4bit: bool = Field(
        False,
        validation_alias=AliasChoices("MOLE_REQUIRE_4BIT"),
        description="Refuses a base model with `load_in_4bit` where 4 bits cannot be had; else it is loaded "
        "whole, with a warning.",
    )
    max_text_chars: int = Field(
        50_000,
        ge=1,
        validation_alias=AliasChoices("MOLE_MAX_TEXT_CHARS"),
        description="Longest text, in code points.",
    )
    max_description_chars: int = Field(
        2_000,
        ge=1,
        validation_alias=AliasChoices("MOLE_MAX_DESCRIPTION_CHARS"),
        description="Longest description, in code points.",
    )
    max_body_bytes: int = Field(
        8 * 2**20,
        ge=1024,
        validation_alias=AliasChoices("MOLE_MAX_BODY_BYTES"),
        description="Longest request body, in bytes.",
    )
    drain_timeout_s: float = Field(
        30.0,
        ge=0,
        validation_alias=AliasChoices("MOLE_DRAIN_TIMEOUT_SECONDS"),
        description="How long requests in flight may take to finish after SIGTERM, in seconds.",
    )

    log_format: Literal["text", "json"] = Field(
        "text", validation_alias=AliasChoices("MOLE_LOG_FORMAT"), description="Form of the log's lines."
    )
    otel_exporter: str | None = Field(
        None,
        validation_alias=AliasChoices("OTEL_TRACES_EXPORTER"),
        description="Where traces go: otlp, console or none. OpenTelemetry reads its other variables.",
    )
    otel_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        description="Where the OTLP exporter sends traces; setting it turns tracing on.",
    )
    otel_disabled: bool = Field(
        False,
        validation_alias=AliasChoices("OTEL_SDK_DISABLED"),
        description="Turns tracing off.",
    )

    @field_validator("cache_dir", "hf_cache_path", "adapter_path", "config_path", "registry_path")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser()

    @property
    def registry_file(self) -> Path:
        """Where the registry is read from."""
        return self.registry_path or self.config_path / "experts_registry.json"
