"""The generated settings page, and that it is up to date."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts" / "settings_table.py"
spec = importlib.util.spec_from_file_location("settings_table", SCRIPT)
assert spec is not None
assert spec.loader is not None
table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(table)


class Colour(Enum):
    RED = "red"


class Example(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="mole_")

    must: int = Field(description="Needed.")
    port: int = Field(8000, validation_alias=AliasChoices("WORKER_PORT", "port"), description="A | b.")
    mode: Literal["x", "y"] | None = Field(None, description="How.")
    token: SecretStr = Field(SecretStr("s"), description="Hidden.")
    place: Path = Field(ROOT / "config", description="Where.")
    colour: Colour = Field(Colour.RED, description="Which.")


def test_rows():
    assert table.rows(Example) == [
        "| `MOLE_MUST` | required | Needed. |\n",
        "| `WORKER_PORT` | `8000` | A \\| b. |\n",
        "| `MOLE_MODE` |  | How. One of `x`, `y`. |\n",
        "| `MOLE_TOKEN` | secret | Hidden. |\n",
        "| `MOLE_PLACE` | `config` | Where. |\n",
        "| `MOLE_COLOUR` | `red` | Which. |\n",
    ]


def test_the_page_is_up_to_date():
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr


def test_every_setting_says_what_it_means():
    for _title, module in table.MODULES:
        for settings in table.classes(module):
            assert [name for name, field in settings.model_fields.items() if not field.description] == []
