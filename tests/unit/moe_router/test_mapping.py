from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from moe_router.errors import ConfigError
from moe_router.mapping import WorkerMapping, load_mapping

ROOT = Path(__file__).parents[3]

FLEET = """{
 "_comment": "which machine runs what",
 "workers": {
  "_spare": {"url": "nowhere"},
  "worker-0": {"url": "http://expert-worker-0:8001/", "base_model_key": "llama", "gpu_device": "0",
               "machine": "machine-0", "note": "same host", "_since": 2024},
  "worker-4": {"url": "http://10.8.100.28:8005", "base_model_key": "mistral", "gpu_device": 1, "rack": 7},
  "worker-7": {"url": "https://[fd00::7]:8005", "base_model_key": "mistral", "drain": true}
 },
 "model_to_worker": {
  "_note": ["a", "comment"],
  "llama": "worker-0",
  "mistral": ["worker-4", "worker-7"]
 },
 "version": 3
}"""


def write(folder: Path, content: str) -> Path:
    path = folder / "mapping.json"
    path.write_text(content)
    return path


def test_an_existing_file_loads_and_unknown_keys_warn(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        mapping = load_mapping(write(tmp_path, FLEET))
    assert list(mapping.workers) == ["worker-0", "worker-4", "worker-7"]
    assert mapping.workers["worker-0"].url == "http://expert-worker-0:8001"
    assert mapping.workers["worker-7"].drain
    assert mapping.workers_for("llama") == ("worker-0",)
    assert mapping.workers_for("mistral") == ("worker-4", "worker-7")
    assert mapping.workers_for("gpt") == ()
    warnings = [record.getMessage() for record in caplog.records]
    assert [w.split("key ")[1] for w in warnings] == [
        "$.version is ignored", "$.workers['worker-4'].rack is ignored",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "config/expert_machine_mapping.json",
        "config/demo/expert_machine_mapping.json",
        "config/demo/expert_machine_mapping.docker.json",
    ],
)
def test_the_shipped_files_load_without_a_warning(name, caplog):
    with caplog.at_level(logging.WARNING):
        mapping = load_mapping(ROOT / name)
    assert caplog.records == []
    for worker_id, worker in mapping.workers.items():
        assert worker_id in mapping.workers_for(worker.base_model_key)


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "reason"),
    [
        ('"llama": "worker-0"', '"llama": "worker-9"', 12, "$.model_to_worker.llama",
         "unknown worker 'worker-9'"),
        ('"llama": "worker-0"', '"llama": "worker-4"', 12, "$.model_to_worker.llama", "is 'mistral'"),
        ('"llama": "worker-0"', '"llama": 0', 12, "$.model_to_worker.llama", "valid"),
        ('["worker-4", ', '["worker-4", 4, ', 13, "$.model_to_worker.mistral[1]", "valid string"),
        ('["worker-4", ', '["_spare", ', 13, "$.model_to_worker.mistral", "unknown worker '_spare'"),
        ('"url": "http://10.8.100.28:8005", ', "", 7, "$.workers['worker-4'].url", "required"),
        ('"drain": true', '"drain": "maybe"', 8, "$.workers['worker-7'].drain", "boolean"),
        ('"model_to_worker"', '"models"', 1, "$.model_to_worker", "required"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_line_path_and_reason(tmp_path, old, new, line, path, reason):
    assert FLEET.count(old) == 1
    with pytest.raises(ConfigError) as caught:
        load_mapping(write(tmp_path, FLEET.replace(old, new)))
    assert (caught.value.json_path, caught.value.line) == (path, line)
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    "url",
    [
        "10.8.100.28:8005", "worker", "", "ftp://worker:8001", "http://", "http://:8001", "http://worker:0",
        "http://worker:port", "http://worker:70000", "http://me:secret@worker:8001", "http://worker?x=1",
        "http://worker#top", "http://[fd00::7", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_worker_is_refused(tmp_path, url):
    content = FLEET.replace('"http://10.8.100.28:8005"', json.dumps(url))
    with pytest.raises(ConfigError) as caught:
        load_mapping(write(tmp_path, content))
    assert caught.value.json_path == "$.workers['worker-4'].url"
    assert caught.value.line == 7


def test_a_url_that_is_refused_does_not_show_its_password(tmp_path):
    content = FLEET.replace('"http://10.8.100.28:8005"', '"http://me:hunter2@worker:8001"')
    with pytest.raises(ConfigError) as caught:
        load_mapping(write(tmp_path, content))
    assert "hunter2" not in str(caught.value)


def test_a_replica_that_is_named_twice_gets_no_double_share():
    worker: dict[str, Any] = {"url": "http://w:1", "base_model_key": "m"}
    mapping = WorkerMapping.model_validate(
        {"workers": {"w": worker, "v": worker}, "model_to_worker": {"m": ["w", "v", "w"]}}
    )
    assert mapping.workers_for("m") == ("w", "v")


def test_no_workers_at_all_is_a_valid_fleet(tmp_path):
    mapping = load_mapping(write(tmp_path, '{"workers": {}, "model_to_worker": {"m": []}}'))
    assert mapping.workers_for("m") == ()
