from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from moe_router.errors import ConfigError, UnknownTaskError
from moe_router.registry import Registry, load_registry, unknown_keys

ROOT = Path(__file__).parents[3]
TASK = "finance/sentiment_analysis"
LONG = "x" * 199

# A fleet's file as it was before MoLE: extra keys, paths from another root, names of languages.
FLEET = """{
 "_comment": "edited by hand",
 "default_generation": {"max_new_tokens": 256, "temperature": 0.2, "top_p": 0.9, "repetition_penalty": 1.05},
 "base_models": {
  "_old": "was llama-1",
  "llama-2-7b-hf": {"hf_name": "meta-llama/Llama-2-7b-hf", "load_in_4bit": true, "device_map": "auto",
                    "revision": "main"},
  "bloomz-7b1": {"hf_name": "bigscience/bloomz-7b1", "device_map": {"": 0}}
 },
 "tasks": {
  "_todo": {"anything": ["goes"]},
  "finance/sentiment_analysis": {
   "_why": "asked for by the desk",
   "expert_path": "src/experts/finance",
   "base_model_key": "llama-2-7b-hf", "adapter_name": "fin-sentiment",
   "adapter_path": "src/experts/llms/adapters/finance/sentiment_analysis/llama-2-7b-hf",
   "template_path": "src/experts/llms/adapters/finance/sentiment_analysis/template.json",
   "label_set": ["negative", "neutral", "positive"], "strict_label_decoding": true,
   "supported_languages": ["de", "English", "es", "fr"],
   "generation": {"max_new_tokens": 5, "temperature": 0.0, "top_p": 1.0, "num_beams": 2},
   "language_mapping": {
    "_note": "adapters by language",
    "english": {"base_model_key": "llama-2-7b-hf", "adapter_name": "fin-sentiment-en",
                "adapter_path": "en", "template_path": "en.json", "_by": "Ann"},
    "Chinese": {"base_model_key": "bloomz-7b1", "adapter_name": "fin-sentiment-zh", "expert_path": "x"},
    "ja": {"base_model_key": "bloomz-7b1"}
   }
  }
 }
}"""


def write(folder: Path, content: str | dict[str, Any]) -> Path:
    path = folder / "registry.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return path


def registry(**task: Any) -> Registry:
    own = {"base_model_key": "m", "label_set": ["x", "y"], **task}
    models = {"m": {"hf_name": "org/m"}, "n": {"hf_name": "org/n"}}
    return Registry.model_validate({"base_models": models, "tasks": {"a/b": own}})


class TestAnExistingFleet:
    def test_it_loads_unchanged_and_unknown_keys_warn(self, tmp_path, caplog):
        with caplog.at_level(logging.WARNING):
            loaded = load_registry(write(tmp_path, FLEET))
        assert set(loaded.base_models) == {"llama-2-7b-hf", "bloomz-7b1"}
        assert list(loaded.tasks) == [TASK]
        task = f"$.tasks['{TASK}']"
        assert unknown_keys(loaded) == [
            "$.base_models['llama-2-7b-hf'].revision",
            f"{task}.expert_path",
            f"{task}.generation.num_beams",
            f"{task}.language_mapping.Chinese.expert_path",
        ]
        assert len(caplog.records) == 4
        assert "expert_path is ignored" in caplog.text

    def test_experts_by_language(self, tmp_path):
        loaded = load_registry(write(tmp_path, FLEET))
        names = {code: [e.name for e in loaded.experts_for(TASK, code)] for code in ("en", "de", "zh", "ja")}
        assert names == {
            "en": ["fin-sentiment-en"], "de": ["fin-sentiment"], "zh": ["fin-sentiment-zh"],
            "ja": ["bloomz-7b1"],
        }  # fmt: skip
        assert loaded.experts_for(TASK, "sw") == ()
        assert loaded.experts_for(TASK, "und") == ()
        assert loaded.languages_of(TASK) == ("de", "en", "es", "fr", "ja", "zh")
        assert [e.name for e in loaded.all_experts(TASK)] == [
            "fin-sentiment", "fin-sentiment-en", "fin-sentiment-zh", "bloomz-7b1",
        ]  # fmt: skip

    def test_an_override_on_another_model_takes_no_adapter_of_the_first(self, tmp_path):
        loaded = load_registry(write(tmp_path, FLEET))
        (japanese,) = loaded.experts_for(TASK, "ja")
        assert (japanese.base_model_key, japanese.adapter_name, japanese.adapter_path) == (
            "bloomz-7b1",
            None,
            None,
        )
        assert japanese.template_path == loaded.task(TASK).template_path

    @pytest.mark.parametrize("name", ["config/experts_registry.json", "config/demo/experts_registry.json"])
    def test_the_shipped_files_load_without_a_warning(self, name, caplog):
        with caplog.at_level(logging.WARNING):
            loaded = load_registry(ROOT / name)
        assert caplog.records == []
        assert set(loaded.domains) >= {"finance"}
        assert all(loaded.all_experts(key) for key in loaded.tasks)


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "reason"),
    [
        ('"base_model_key": "llama-2-7b-hf", "adapter_name": "fin-sentiment",', '"base_model_key": "llama",',
         15, f"$.tasks['{TASK}'].base_model_key", "undeclared base model 'llama'"),
        ('"ja": {"base_model_key": "bloomz-7b1"}', '"ja": {"base_model_key": "bloom"}',
         26, f"$.tasks['{TASK}'].language_mapping.ja.base_model_key", "undeclared base model 'bloom'"),
        ('"Chinese"', '"Klingonese"', 25, f"$.tasks['{TASK}'].language_mapping.Klingonese",
         "'Klingonese' is neither an ISO 639 code nor an English language name"),
        ('"ja": {', '"EN": {', 21, f"$.tasks['{TASK}'].language_mapping",
         "'english' and 'EN' are the same language"),
        ('"English", "es"', '"Engrish", "es"', 19, f"$.tasks['{TASK}'].supported_languages", "'Engrish'"),
        ('"positive"]', '"positive", "neutral"]', 18, f"$.tasks['{TASK}'].label_set", "distinct"),
        ('"neutral", ', '"", ', 18, f"$.tasks['{TASK}'].label_set", "not empty"),
        ('"negative"', "1", 18, f"$.tasks['{TASK}'].label_set[0]", "valid string"),
        ('"temperature": 0.0', '"temperature": -1', 20, f"$.tasks['{TASK}'].generation.temperature",
         "greater"),
        ('"finance/sentiment_analysis": {', '"finance": {', 12, "$.tasks.finance", "domain/task"),
        ('"finance/sentiment_analysis": {', '"none/of these": {', 12, "$.tasks['none/of these']",
         "domain/task"),
        ('"finance/sentiment_analysis": {', '"none/of": {', 12, "$.tasks['none/of']", "choose another name"),
        ('"finance/sentiment_analysis": {', f'"a/{LONG}": {{', 12, f"$.tasks['a/{LONG}']",
         "more than 200 characters"),
        ('"hf_name": "bigscience/bloomz-7b1", ', "", 8, "$.base_models['bloomz-7b1'].hf_name", "required"),
        ('"device_map": {"": 0}', '"device_map": 7', 8, "$.base_models['bloomz-7b1'].device_map", "valid"),
        ('"base_models": {', '"base_model": {', 1, "$.base_models", "required"),
        ('"adapter_name": "fin-sentiment",', '"adapter_name": "probe",', 12, f"$.tasks['{TASK}']",
         "an expert named 'probe'"),
        ('"adapter_name": "fin-sentiment-en"', '"adapter_name": "probe"', 12, f"$.tasks['{TASK}']",
         "an expert named 'probe'"),
        ('"adapter_name": "fin-sentiment",', '"adapter_name": "fin\\nsentiment",', 15,
         f"$.tasks['{TASK}'].adapter_name", "cannot be printed"),
        ('"bloomz-7b1": {', '"bloomz\\u0007": {', 8, "$.base_models['bloomz\\x07']", "cannot be printed"),
        ('"finance/sentiment_analysis": {', '"finance/sentiment\\u001b[2J": {', 12,
         "$.tasks['finance/sentiment\\x1b[2J']", "cannot be printed"),
        ('"adapter_path": "en"', '"adapter_path": ["en"]', 24,
         f"$.tasks['{TASK}'].language_mapping.english.adapter_path", "valid string"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_line_path_and_reason(tmp_path, old, new, line, path, reason):
    assert FLEET.count(old) == 1 or old == '"base_models": {'
    with pytest.raises(ConfigError) as caught:
        load_registry(write(tmp_path, FLEET.replace(old, new)))
    assert caught.value.json_path == path
    assert reason in caught.value.reason
    assert caught.value.line == line


def test_no_expert_of_several_may_be_named_as_the_probe(tmp_path):
    experts = [{"name": name, "base_model_key": "m"} for name in ("small", "probe")]
    task = {"base_model_key": "m", "experts": experts}
    data = {"base_models": {"m": {"hf_name": "org/m"}}, "tasks": {"a/b": task}}
    with pytest.raises(ConfigError, match="an expert named 'probe' would be taken for the probe"):
        load_registry(write(tmp_path, data))


@pytest.mark.parametrize("path", ["../secret", "probes/../../secret"])
def test_a_probe_lies_in_its_folder(tmp_path, path):
    task = {"base_model_key": "m", "probe": {"path": path}}
    data = {"base_models": {"m": {"hf_name": "org/m"}}, "tasks": {"a/b": task}}
    with pytest.raises(ConfigError, match=r"probe\.path: .*leads out of its folder"):
        load_registry(write(tmp_path, data))


def test_a_registry_without_probes_forgets_what_it_remembered_of_them():
    own = registry(probe={"path": "p"})
    own.experts_for("a/b", "sw")
    assert own.without_probes([]) is own
    bare = own.without_probes(["a/b"])
    assert bare == registry()
    assert bare.experts_for("a/b", "sw") == own.experts_for("a/b", "sw")
    assert own.task("a/b").probe is not None


def test_a_registry_without_tasks_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"\$\.tasks: .*at least 1"):
        load_registry(write(tmp_path, {"base_models": {}, "tasks": {"_only": "a comment"}}))


class TestOneExpert:
    def test_without_an_adapter_the_base_model_is_the_expert(self):
        (expert,) = registry().experts_for("a/b", "sw")
        assert (expert.name, expert.base_model_key, expert.adapter_name, expert.adapter_path) == (
            "m",
            "m",
            None,
            None,
        )
        assert expert.languages is None
        assert registry().languages_of("a/b") is None

    def test_stated_languages_bound_it_but_mapped_ones_are_served_too(self):
        bounded = registry(
            supported_languages=["german"], language_mapping={"french": {"adapter_name": "fr"}}
        )
        assert [e.name for e in bounded.experts_for("a/b", "de")] == ["m"]
        assert [e.name for e in bounded.experts_for("a/b", "fr")] == ["fr"]
        assert bounded.experts_for("a/b", "en") == ()
        assert bounded.languages_of("a/b") == ("de", "fr")

    def test_an_override_keeps_what_it_does_not_name(self):
        own = registry(
            adapter_name="all", adapter_path="p", template_path="t",
            language_mapping={"de": {"template_path": "t-de"}, "fr": {"base_model_key": "m"}},
        )  # fmt: skip
        (german,) = own.experts_for("a/b", "de")
        assert (german.adapter_name, german.adapter_path, german.template_path) == ("all", "p", "t-de")
        (french,) = own.experts_for("a/b", "fr")
        assert (french.adapter_name, french.adapter_path, french.template_path) == ("all", "p", "t")

    def test_the_same_expert_is_listed_once(self):
        own = registry(language_mapping={"de": {"adapter_name": "eu"}, "fr": {"adapter_name": "eu"}})
        assert [e.name for e in own.all_experts("a/b")] == ["m", "eu"]

    @pytest.mark.parametrize("language", ["de", "fr", "en", "und"])
    def test_whoever_serves_a_language_is_among_all(self, language):
        own = registry(
            supported_languages=["de", "en"], language_mapping={"fr": {"adapter_name": "fr"}, "de": {}}
        )
        assert set(own.experts_for("a/b", language)) <= set(own.all_experts("a/b"))


class TestSeveralExperts:
    EXPERTS = (
        {"name": "small", "base_model_key": "m"},
        {"name": "large", "base_model_key": "n", "cost": 5, "languages": ["german", "en"]},
    )

    def test_they_replace_the_task_s_own_fields(self):
        own = registry(adapter_name="own", template_path="t", experts=self.EXPERTS)
        assert [(e.name, e.cost, e.template_path) for e in own.experts_for("a/b", "de")] == [
            ("small", 1.0, "t"),
            ("large", 5.0, "t"),
        ]
        assert [e.name for e in own.experts_for("a/b", "sw")] == ["small"]
        assert own.languages_of("a/b") is None
        assert own.all_experts("a/b") == own.experts_for("a/b", "en")

    def test_those_that_state_no_languages_serve_the_task_s(self):
        own = registry(supported_languages=["fr"], experts=self.EXPERTS)
        assert [e.name for e in own.experts_for("a/b", "fr")] == ["small"]
        assert [e.name for e in own.experts_for("a/b", "de")] == ["large"]
        assert own.languages_of("a/b") == ("de", "en", "fr")

    @pytest.mark.parametrize(
        ("experts", "path", "reason"),
        [
            ([EXPERTS[0], EXPERTS[0]], "$.tasks['a/b'].experts", "same name"),
            ([{"name": "x", "base_model_key": "gone"}], "$.tasks['a/b'].experts[0].base_model_key",
             "undeclared"),
            ([{"name": "x"}], "$.tasks['a/b'].experts[0].base_model_key", "required"),
            ([{"name": "", "base_model_key": "m"}], "$.tasks['a/b'].experts[0].name", "at least 1"),
            ([{"name": "a\x1b[2J", "base_model_key": "m"}], "$.tasks['a/b'].experts[0].name",
             "cannot be printed"),
            ([{**EXPERTS[0], "cost": -1}], "$.tasks['a/b'].experts[0].cost", "greater"),
            ([{**EXPERTS[0], "languages": ["xx"]}], "$.tasks['a/b'].experts[0].languages", "'xx'"),
        ],
    )  # fmt: skip
    def test_their_mistakes_are_found(self, tmp_path, experts, path, reason):
        data = json.loads(registry().model_dump_json())
        data["tasks"]["a/b"]["experts"] = experts
        with pytest.raises(ConfigError) as caught:
            load_registry(write(tmp_path, data))
        assert caught.value.json_path == path
        assert reason in caught.value.reason
        assert caught.value.line is not None

    def test_unknown_keys_are_found_in_every_corner(self):
        own = registry(experts=[{**self.EXPERTS[0], "gpu": 1}], probe={"path": "p", "kind": "linear"})
        assert unknown_keys(own) == ["$.tasks['a/b'].experts[0].gpu", "$.tasks['a/b'].probe.kind"]


def test_domains_keep_the_order_of_the_file():
    task = {"base_model_key": "m"}
    own = Registry.model_validate(
        {"base_models": {"m": {"hf_name": "x"}}, "tasks": {"z/1": task, "a/1": task, "z/2": task}}
    )
    assert own.domains == ("z", "a")


def test_an_unknown_task_is_the_caller_s_mistake():
    for ask in (registry().task, registry().all_experts, registry().languages_of):
        with pytest.raises(UnknownTaskError) as caught:
            ask("a/c")
        assert caught.value.known == ("a/b",)


def test_a_password_in_a_model_servers_address_is_refused_and_not_shown(tmp_path):
    served = '"hf_name": "b", "engine": "openai", "base_url": "http://me:hunter2@llm:8080/v1"'
    with pytest.raises(ConfigError, match="MOLE_ENGINE_API_KEY") as caught:
        load_registry(write(tmp_path, FLEET.replace('"hf_name": "bigscience/bloomz-7b1"', served)))
    assert (caught.value.json_path, caught.value.line) == ("$.base_models['bloomz-7b1'].base_url", 8)
    assert "hunter2" not in str(caught.value)
