"""The coordinator's settings, all from environment variables."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

import moe_router

PACKAGE = Path(moe_router.__file__).parent
TOTAL_PER_ATTEMPT = 2.5
"""The default bound on a whole request, in attempts."""
BYTES_OF_ESCAPES, BYTES_OF_OPTIONS = 12, 64 * 1024
"""Of a character outside of the basic plane (RFC 8259, section 7), and of all of a request but its texts."""


def _env(name: str) -> AliasChoices:
    return AliasChoices(name)


class Settings(BaseSettings):
    """What an operator can set. A name in capitals is the environment variable."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, protected_namespaces=(), env_ignore_empty=True,
        # No variable's name begins so: else a field's bare name would be read, another service's STATE_DIR.
        env_prefix="=",
    )  # fmt: skip

    service_mode: Literal["coordinator", "monolithic"] = Field(
        "coordinator",
        validation_alias=_env("SERVICE_MODE"),
        description="Ask workers over HTTP, or run the experts in this process.",
    )
    config_path: Path = Field(
        Path("config"),
        validation_alias=_env("CONFIG_PATH"),
        description="Folder of the two files below, where they are not set.",
    )
    registry_path: Path | None = Field(
        None, validation_alias=_env("EXPERT_REGISTRY_PATH"), description="The registry."
    )
    mapping_path: Path | None = Field(
        None, validation_alias=_env("EXPERT_MAPPING_PATH"), description="The mapping."
    )
    adapter_path: Path = Field(
        PACKAGE / "experts" / "llms" / "adapters",
        validation_alias=_env("ADAPTER_PATH"),
        description="Folder that relative adapter and template paths start from.",
    )
    cache_dir: Path = Field(
        Path("~/.cache/mole"),
        validation_alias=_env("MOLE_CACHE_DIR"),
        description="Folder of models that are assembled or converted.",
    )
    hf_cache_path: Path | None = Field(
        None, validation_alias=_env("HF_CACHE_PATH"), description="Folder of models from the hub."
    )
    gating_model_dir: Path = Field(
        PACKAGE / "gating" / "models",
        validation_alias=_env("MOLE_GATING_MODEL_DIR"),
        description="Folder of the gating weights.",
    )
    lid_path: Path | None = Field(
        None,
        validation_alias=_env("MOLE_LID_PATH"),
        description="The language model lid.176; the usual places are searched where unset.",
    )
    encoder: str | None = Field(
        None, validation_alias=_env("MOLE_ENCODER"), description="The text encoder; the default where unset."
    )
    gating_threads: int | None = Field(
        None, ge=1, validation_alias=_env("MOLE_GATING_THREADS"), description="CPU threads of the encoder."
    )
    target_risk: float = Field(
        0.05,
        gt=0,
        lt=1,
        validation_alias=_env("MOLE_TARGET_RISK"),
        description="Share of answered requests that may go to a wrong task; gating abstains accordingly.",
    )
    cost_weight: float = Field(
        0.05,
        ge=0,
        le=1,
        validation_alias=_env("MOLE_COST_WEIGHT"),
        description="What a call of an expert of cost 1 costs, where a right answer is worth 1; "
        "the higher, the more the probes answer alone.",
    )
    abstain_value: float = Field(
        0.0,
        ge=0,
        lt=1,
        validation_alias=_env("MOLE_ABSTAIN_VALUE"),
        description="What abstaining is worth, likewise; an answer less likely to be right is withheld.",
    )
    exploration: float = Field(
        0.0,
        ge=0,
        le=0.5,
        validation_alias=_env("MOLE_EXPLORATION"),
        description="Share of the router's choices among experts that are taken at random, to learn from.",
    )
    router_poll_s: float = Field(
        5.0,
        gt=0,
        le=3600,
        validation_alias=_env("MOLE_ROUTER_POLL_SECONDS"),
        description="Pause between two looks at which version of the router is live, in seconds.",
    )
    num_threads: int | None = Field(
        None,
        ge=1,
        validation_alias=_env("MOLE_NUM_THREADS"),
        description="CPU threads of an expert's forward pass, in monolithic mode.",
    )
    memory_budget_mib: int | None = Field(
        None,
        ge=1,
        validation_alias=_env("MOLE_MEMORY_BUDGET_MIB"),
        description="Memory for base models in monolithic mode, in MiB; what is free where unset.",
    )
    max_concurrent: int = Field(
        1,
        ge=1,
        le=64,
        validation_alias=_env("MAX_CONCURRENT_GPU_REQUESTS"),
        description="Batches in flight on the device, in monolithic mode.",
    )
    max_queue: int = Field(
        512,
        ge=1,
        validation_alias=_env("MOLE_MAX_QUEUE"),
        description="Requests that may wait for a model, in monolithic mode; one more is refused with 503.",
    )
    max_batch_tokens: int = Field(
        1024,
        ge=64,
        validation_alias=_env("MOLE_MAX_BATCH_TOKENS"),
        description="Bound on the tokens of one batch, in monolithic mode; a quarter more if that takes all.",
    )
    require_4bit: bool = Field(
        False,
        validation_alias=_env("MOLE_REQUIRE_4BIT"),
        description="Refuses a base model with `load_in_4bit` where 4 bits cannot be had; else it is loaded "
        "whole, with a warning; in monolithic mode.",
    )
    engine_api_key: SecretStr | None = Field(
        None,
        validation_alias=_env("MOLE_ENGINE_API_KEY"),
        description="Bearer token for the model server of a base model whose engine is `openai`, "
        "in monolithic mode.",
    )
    worker_token: SecretStr | None = Field(
        None, validation_alias=_env("MOLE_WORKER_TOKEN"), description="Bearer token sent to the workers."
    )
    request_timeout_s: float = Field(
        120.0,
        gt=0,
        le=3600,
        validation_alias=_env("REQUEST_TIMEOUT_SECONDS"),
        description="Bound on one attempt at one worker, headers and body, in seconds.",
    )
    hedge_after_s: float | None = Field(
        None,
        gt=0,
        le=3600,
        validation_alias=_env("MOLE_HEDGE_AFTER_SECONDS"),
        description="How long a worker is waited for before another replica is asked as well, in seconds; "
        "never where unset. Not for batches and jobs.",
    )
    connect_timeout_s: float = Field(
        2.0,
        gt=0,
        le=60,
        validation_alias=_env("MOLE_CONNECT_TIMEOUT_SECONDS"),
        description="Bound on connecting to a worker, and on a health probe, in seconds.",
    )
    probe_interval_s: float = Field(
        1.0,
        gt=0,
        le=60,
        validation_alias=_env("MOLE_PROBE_INTERVAL_SECONDS"),
        description="Pause between two rounds of health probes, in seconds.",
    )
    eject_after_errors: int = Field(
        3,
        ge=1,
        validation_alias=_env("MOLE_EJECT_AFTER_ERRORS"),
        description="Invalid answers in a row that eject a worker; a broken connection does at once.",
    )
    eject_s: float = Field(
        1.0,
        gt=0,
        le=60,
        validation_alias=_env("MOLE_EJECT_SECONDS"),
        description="First ejection of a worker, in seconds; up to four times that where trials fail.",
    )
    max_in_flight_per_worker: int = Field(
        64,
        ge=1,
        validation_alias=_env("MOLE_MAX_IN_FLIGHT_PER_WORKER"),
        description="Calls in flight at one worker, more wait in turn; a hung one blocks no more than these.",
    )
    max_text_chars: int = Field(
        50_000,
        ge=1,
        validation_alias=_env("MOLE_MAX_TEXT_CHARS"),
        description="Longest text, in code points.",
    )
    max_description_chars: int = Field(
        2_000,
        ge=1,
        validation_alias=_env("MOLE_MAX_DESCRIPTION_CHARS"),
        description="Longest description, in code points.",
    )
    max_body_bytes: int = Field(
        8 * 2**20,
        ge=1024,
        validation_alias=_env("MOLE_MAX_BODY_BYTES"),
        description="Longest request body, in bytes.",
    )

    @cached_property
    def one_text_bytes(self) -> int:
        """Longest body of a request for one text, in bytes: all that its members can hold, as JSON's escapes.

        A longer one is refused before it is parsed, which holds the event loop.
        """
        most = BYTES_OF_ESCAPES * (2 * self.max_text_chars + self.max_description_chars)
        return min(self.max_body_bytes, most + BYTES_OF_OPTIONS)

    max_requests: int = Field(
        2048,
        ge=1,
        validation_alias=_env("MOLE_MAX_REQUESTS"),
        description="Requests and items of batches under way in all; one more is refused with 503.",
    )
    max_requests_per_caller: int = Field(
        512,
        ge=1,
        validation_alias=_env("MOLE_MAX_REQUESTS_PER_CALLER"),
        description="The same for one caller; one more is refused with 429.",
    )
    max_waiting_per_model: int = Field(
        1024,
        ge=1,
        validation_alias=_env("MOLE_MAX_WAITING_PER_MODEL"),
        description="Requests that wait for a model's workers, which are full; one more is refused with 503.",
    )
    state_dir: Path = Field(
        Path("state"),
        validation_alias=_env("MOLE_STATE_DIR"),
        description="Folder of the SQLite file: jobs, feedback, router versions, API keys.",
    )
    database_url: SecretStr | None = Field(
        None,
        validation_alias=_env("DATABASE_URL"),
        description="`postgresql://…` or `sqlite:///…`; the SQLite file in MOLE_STATE_DIR where unset.",
    )
    decision_retention_days: float = Field(
        30.0,
        gt=0,
        le=3650,
        validation_alias=_env("MOLE_DECISION_RETENTION_DAYS"),
        description="How long gating's decisions, which hold no text, are kept to learn from, in days.",
    )
    decision_queue: int = Field(
        4096,
        ge=1,
        le=1_000_000,
        validation_alias=_env("MOLE_DECISION_QUEUE"),
        description="Decisions that wait to be written, 2 to 4 KiB each; more than these are dropped.",
    )
    job_concurrency: int = Field(
        8,
        ge=0,
        le=1024,
        validation_alias=_env("MOLE_JOB_CONCURRENCY"),
        description="Items of jobs that run at once in each process, fewer while requests are in flight; "
        "0 leaves jobs to other coordinators.",
    )
    job_max_items: int = Field(
        100_000,
        ge=1,
        le=10_000_000,
        validation_alias=_env("MOLE_JOB_MAX_ITEMS"),
        description="Most items of one job.",
    )
    job_max_body_bytes: int = Field(
        256 * 2**20,
        ge=1024,
        validation_alias=_env("MOLE_JOB_MAX_BODY_BYTES"),
        description="Longest JSON Lines upload, in bytes; a line, and a JSON body, take MOLE_MAX_BODY_BYTES.",
    )
    job_max_unfinished: int = Field(
        100,
        ge=1,
        validation_alias=_env("MOLE_JOB_MAX_UNFINISHED"),
        description="Most unfinished jobs of one caller.",
    )
    job_max_attempts: int = Field(
        30,
        ge=1,
        le=1000,
        validation_alias=_env("MOLE_JOB_MAX_ATTEMPTS"),
        description="Attempts at an item whose worker cannot be reached; 30 outlast 20 minutes.",
    )
    job_lease_s: float = Field(
        30.0,
        ge=1,
        le=3600,
        validation_alias=_env("MOLE_JOB_LEASE_SECONDS"),
        description="How long a killed coordinator's items wait before another one takes them, in seconds.",
    )
    job_retention_days: float = Field(
        7.0,
        gt=0,
        le=3650,
        validation_alias=_env("MOLE_JOB_RETENTION_DAYS"),
        description="How long a finished job, its texts and its results are kept, in days.",
    )
    require_api_key: bool = Field(
        False,
        validation_alias=_env("MOLE_REQUIRE_API_KEY"),
        description="Ask for an API key even where none exists yet; once one exists it is asked for anyway.",
    )
    metrics_require_key: bool = Field(
        False,
        validation_alias=_env("MOLE_METRICS_REQUIRE_KEY"),
        description="Ask for an API key at `/metrics`, too, where keys are asked for.",
    )
    audit_log: Path | None = Field(
        None,
        validation_alias=_env("MOLE_AUDIT_LOG"),
        description="File that the audit log is appended to; standard error where unset.",
    )
    cors_origins: str = Field(
        "",
        validation_alias=_env("MOLE_CORS_ORIGINS"),
        description="Web origins whose pages may call the API, by comma, such as `https://a.example`; "
        "`*` for all. CORS is off where unset.",
    )
    drain_timeout_s: float = Field(
        30.0,
        ge=0,
        validation_alias=_env("MOLE_DRAIN_TIMEOUT_SECONDS"),
        description="How long requests in flight may take to finish after SIGTERM, in seconds.",
    )

    log_format: Literal["text", "json"] = Field(
        "text", validation_alias=_env("MOLE_LOG_FORMAT"), description="Form of the log's lines."
    )
    otel_exporter: str | None = Field(
        None,
        validation_alias=_env("OTEL_TRACES_EXPORTER"),
        description="Where traces go: otlp, console or none. OpenTelemetry reads its other variables.",
    )
    otel_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        description="Where the OTLP exporter sends traces; setting it turns tracing on.",
    )
    otel_disabled: bool = Field(
        False, validation_alias=_env("OTEL_SDK_DISABLED"), description="Turns tracing off."
    )

    @field_validator("*", mode="after")
    @classmethod
    def _home(cls, value: Any) -> Any:
        return value.expanduser() if isinstance(value, Path) else value

    @property
    def registry_file(self) -> Path:
        """Where the registry is read from."""
        return self.registry_path or self.config_path / "experts_registry.json"

    @property
    def mapping_file(self) -> Path:
        """Where the mapping is read from."""
        return self.mapping_path or self.config_path / "expert_machine_mapping.json"

    @property
    def database(self) -> str:
        """The database's URL."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.state_dir / 'coordinator.sqlite3'}"

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """The web origins that CORS lets in."""
        return tuple(part for part in (given.strip() for given in self.cors_origins.split(",")) if part)

    @property
    def total_timeout_s(self) -> float:
        """The default bound on a whole request, in seconds."""
        return TOTAL_PER_ATTEMPT * self.request_timeout_s
