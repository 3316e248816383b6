"""What the `mole` command takes from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

import moe_router

PACKAGE = Path(moe_router.__file__).parent
DEFAULT_ADAPTERS = PACKAGE / "experts" / "llms" / "adapters"


class CommandSettings(BaseSettings):
    """Defaults of the command's options, by these names alone: a bare `URL` may be another service's."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    url: str = Field(
        "http://127.0.0.1:8000",
        validation_alias="MOLE_URL",
        description="Where the coordinator listens.",
    )
    api_key: SecretStr | None = Field(
        None,
        validation_alias="MOLE_API_KEY",
        description="Sent as a bearer token.",
    )
    cache_dir: Path = Field(
        Path("~/.cache/mole"),
        validation_alias="MOLE_CACHE_DIR",
        description="Where models are kept once they are assembled and converted.",
    )
    config_path: Path = Field(
        Path("config"),
        validation_alias="CONFIG_PATH",
        description="Folder of the registry and the mapping, where their own variables are not set.",
    )
    registry_path: Path | None = Field(
        None,
        validation_alias="EXPERT_REGISTRY_PATH",
        description="The registry.",
    )
    mapping_path: Path | None = Field(
        None,
        validation_alias="EXPERT_MAPPING_PATH",
        description="The mapping.",
    )
    worker_port: int = Field(
        8001,
        ge=1,
        le=65535,
        validation_alias="WORKER_PORT",
        description="Where `mole serve worker` listens.",
    )
    adapter_root: Path = Field(
        DEFAULT_ADAPTERS,
        validation_alias="ADAPTER_PATH",
        description="Root of relative adapter and template paths.",
    )
    gating_models: Path = Field(
        PACKAGE / "gating" / "models",
        validation_alias="MOLE_GATING_MODEL_DIR",
        description="Folder of the gating weights, and of the probes.",
    )
    encoder: str | None = Field(
        None,
        validation_alias="MOLE_ENCODER",
        description="The text encoder to train and judge gating with; the default where unset.",
    )
    target_risk: float = Field(
        0.05,
        gt=0.0,
        lt=1.0,
        validation_alias="MOLE_TARGET_RISK",
        description="Share of answered requests that may go to a wrong task, as the coordinator has it.",
    )
    lid_path: Path | None = Field(
        None,
        validation_alias="MOLE_LID_PATH",
        description="lid.176.bin or its folder, as the coordinator has it.",
    )

    @property
    def registry_file(self) -> Path:
        """Where the registry is."""
        return self.registry_path or self.config_path / "experts_registry.json"

    @property
    def mapping_file(self) -> Path:
        """Where the mapping is."""
        return self.mapping_path or self.config_path / "expert_machine_mapping.json"

    @property
    def cache(self) -> Path:
        """The cache folder with `~` resolved."""
        return self.cache_dir.expanduser()
