"""The image: cached layers, no root, one fasttext, and no torch in the coordinator's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docker.engine import IMAGE, SLIM_IMAGE, build, docker, inspect, succeeds

REQUIREMENTS = "pip install -r /build/requirements.txt"


def python(image: str, code: str) -> str:
    return docker("run", "--rm", "--entrypoint", "python", image, "-c", code).strip()


def cached(log: str) -> dict[str, bool]:
    """Each step of a build and whether its layer was reused."""
    steps = re.findall(r"^Step \d+/\d+ : (.*)\n(.*)", log, re.MULTILINE)
    return {step: "Using cache" in below for step, below in steps}


@pytest.fixture(scope="module")
def slim(image: str, checkout: Path, engine: str) -> str:
    """The coordinator's own image, built with BuildKit where the client has it."""
    buildkit = succeeds("docker", "buildx", "version")
    log = build(checkout, engine, SLIM_IMAGE, "--target", "coordinator", buildkit=buildkit)
    assert ("exporting layers" in log) == buildkit
    return SLIM_IMAGE


def test_a_touched_source_reuses_the_requirements(image: str, checkout: Path, engine: str):
    source = checkout / "app" / "main.py"
    before = source.read_text()
    try:
        source.write_text(before + "# touched\n")
        log = build(checkout, engine, "mole:touched")
    finally:
        source.write_text(before)
        docker("rmi", "-f", "mole:touched", ok=False)
    steps = cached(log)
    assert [reused for step, reused in steps.items() if REQUIREMENTS in step] == [True]
    assert [reused for step, reused in steps.items() if "pip install" in step] == [True] * 4
    assert not all(reused for step, reused in steps.items() if step == "COPY app/ ./app/")


def test_the_context_is_what_the_image_is_made_of(image: str):
    listed = docker("run", "--rm", "--entrypoint", "ls", image, "-A", "/app").split()
    assert {*listed} == {"app", "expert_worker", "moe_router", "mole", "state"}


def test_the_image_is_described_and_not_run_by_root(image: str):
    config = inspect(image)["Config"]
    assert config["User"] == "10001:10001"
    assert "8000/tcp" in config["ExposedPorts"]
    assert "PYTHONPATH=/app" in config["Env"]
    assert config["Labels"]["org.opencontainers.image.title"] == "MoLE"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert "health/ready" in str(config["Healthcheck"]["Test"])
    assert python(image, "import sys; print(sys.version_info[:2])") == "(3, 11)"


def test_the_command_is_there_as_the_pages_say(slim: str, image: str):
    for name in (slim, image):
        assert docker("run", "--rm", "--entrypoint", "mole", name, "--version").startswith("mole ")
        assert "create" in docker("run", "--rm", "--entrypoint", "mole", name, "keys", "--help")


def test_what_is_installed_fits_together_and_fasttext_comes_once(image: str):
    docker("run", "--rm", "--entrypoint", "pip", image, "check")
    providers = "from importlib.metadata import packages_distributions as p; print(p()['fasttext'])"
    assert python(image, providers) == "['fasttext-community']"
    guess = "import fasttext; m = fasttext.load_model('/opt/mole/shipped/language_models/lid.176.ftz'); "
    assert python(image, guess + "print(m.predict('Guten Morgen zusammen')[0][0])") == "__label__de"


def test_the_installed_versions_are_the_locks(image: str, checkout: Path):
    pins: dict[str, str] = {}
    for name in ("requirements.lock", "docker/image.lock"):
        lines = (checkout / name).read_text().splitlines()
        pins |= {k.lower().replace("_", "-"): v for k, _, v in (line.partition("==") for line in lines) if v}
    freeze = docker("run", "--rm", "--entrypoint", "pip", image, "freeze", "--exclude", "pip").split()
    found = {k.lower().replace("_", "-"): v.split("+")[0] for k, _, v in (f.partition("==") for f in freeze)}
    of_torch = {name for name in found if name.startswith(("nvidia-", "cuda-", "triton"))}
    assert {n: v for n, v in found.items() if n not in of_torch and pins.get(n) != v} == {}


def test_pip_leaves_no_cache(image: str):
    assert docker("run", "--rm", "--entrypoint", "sh", image, "-c", "ls -A /root/.cache").split() == [
        "fasttext", "huggingface"
    ]  # fmt: skip


def test_the_coordinators_own_image_has_no_torch_and_routes(slim: str, image: str):
    assert python(
        slim, "from importlib.util import find_spec as f; print(f('torch'), f('transformers'))"
    ) == ("None None")
    docker("run", "--rm", "--entrypoint", "pip", slim, "check")
    decide = (
        "import asyncio; from pathlib import Path; from moe_router.registry import load_registry; "
        "from moe_router.gating.pipeline import GatingConfig, GatingPipeline as P; "
        "c = GatingConfig(Path('/none'), model_dir=Path('/opt/mole/shipped/gating_models'), "
        "lid_path=Path('/opt/mole/shipped/language_models')); "
        "p = P.load(load_registry(Path('/config/experts_registry.json')), c); "
        "d = p.decide('I lost my card.', 'Which banking request is this?', served=lambda _: True); "
        "print(asyncio.run(d).task)"
    )
    demo = Path(__file__).parents[2] / "config" / "demo"
    found = docker("run", "--rm", "-v", f"{demo}:/config:ro", "--entrypoint", "python", slim, "-c", decide)
    assert found.split()[-1] == "finance/intent_detection"
    sizes = {name: inspect(name)["Size"] // 10**6 for name in (IMAGE, SLIM_IMAGE)}
    print(f"sizes in MB, the base image's among them: {sizes}")
    assert sizes[SLIM_IMAGE] < sizes[IMAGE] / 2
