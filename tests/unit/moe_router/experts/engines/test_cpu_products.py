from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import chain, repeat
from types import SimpleNamespace

import pytest
import torch

from moe_router.experts.engines import cpu_products


@pytest.fixture(autouse=True)
def precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cpu_products, "_leave", cpu_products._Leave())  # nothing is decided yet
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def test_products_are_as_exact_as_before() -> None:
    used = cpu_products.prefer_onednn()
    assert torch.get_float32_matmul_precision() == ("medium" if used else "highest")
    left, right = torch.randn(33, 2048), torch.randn(2048, 640) / 2048**0.5
    assert (left @ right - left.double() @ right.double()).abs().max() < 5e-5


def test_a_processor_that_rounds_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "TOLERANCE", 0.0)  # less than any processor's error
    assert not cpu_products.prefer_onednn()
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("tolerance", [cpu_products.TOLERANCE, 0.0], ids=["as it may be", "refused"])
def test_a_block_by_mkl_leaves_what_was_chosen(tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "TOLERANCE", tolerance)
    cpu_products.prefer_onednn()
    chosen = torch.get_float32_matmul_precision()

    def fail() -> None:
        with cpu_products.by_mkl():
            assert torch.get_float32_matmul_precision() == "highest"
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert torch.get_float32_matmul_precision() == chosen


def test_it_is_decided_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = cpu_products.prefer_onednn()
    monkeypatch.setattr(cpu_products, "_onednn_is_exact", lambda: not first)
    assert cpu_products.prefer_onednn() is first
    with cpu_products.by_mkl():
        assert cpu_products.prefer_onednn() is first
        assert torch.get_float32_matmul_precision() == "highest"


def test_a_decision_within_a_block_holds_after_it() -> None:
    with cpu_products.by_mkl():
        used = cpu_products.prefer_onednn()
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == ("medium" if used else "highest")


def test_the_last_of_several_threads_gives_the_leave_back() -> None:
    cpu_products.prefer_onednn()
    chosen = torch.get_float32_matmul_precision()
    inside, go = threading.Event(), threading.Event()

    def other() -> None:
        with cpu_products.by_mkl():
            inside.set()
            go.wait(5)

    thread = threading.Thread(target=other)
    with cpu_products.by_mkl():
        thread.start()
        assert inside.wait(5)
    assert torch.get_float32_matmul_precision() == "highest"
    go.set()
    thread.join(5)
    assert torch.get_float32_matmul_precision() == chosen


def test_passes_come_in_few_lengths() -> None:
    lengths = [cpu_products.rounded_rows(count) for count in range(1, 1025)]
    assert all(0 <= rounded - count < max(16, count / 4) for count, rounded in enumerate(lengths, 1))
    assert lengths == sorted(lengths)
    assert len(set(lengths)) == 29


@pytest.mark.parametrize(
    ("capabilities", "faster", "own"),
    [
        ({"avx2": True, "avx512_bf16": False}, True, False),
        ({"amx_bf16": True}, True, True),
        ({"avx512_bf16": True}, True, True),
        ({"avx512_bf16": True}, False, False),
    ],
)
def test_bfloat16_is_for_processors_that_multiply_it_faster(
    capabilities: dict[str, bool], faster: bool, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(cpu_products, "_bfloat16_is_faster", lambda: faster)
    assert cpu_products.computes_bfloat16() is own


def test_a_torch_that_does_not_tell_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not cpu_products.computes_bfloat16()


@pytest.mark.parametrize(
    ("milliseconds", "faster"),
    [
        ({torch.bfloat16: [5], torch.float32: [10]}, True),
        ({torch.bfloat16: [10], torch.float32: [5]}, False),
        ({torch.bfloat16: [9], torch.float32: [10]}, False),
        ({torch.bfloat16: [90, 80, 5], torch.float32: [10]}, True),
        ({torch.bfloat16: [9], torch.float32: [90, 80, 10]}, False),
    ],
    ids=["faster", "slower", "hardly faster", "slow at first", "float32 slow at first"],
)
def test_bfloat16_is_taken_where_its_best_round_is_clearly_the_faster(
    milliseconds: dict[torch.dtype, list[int]], faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = {dtype: chain(times, repeat(times[-1])) for dtype, times in milliseconds.items()}
    now = 0.0

    def linear(given: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        nonlocal now
        assert given.dtype == weights.dtype
        now += next(rounds[given.dtype]) / 1000
        return given

    monkeypatch.setattr(cpu_products, "linear", linear)
    monkeypatch.setattr(cpu_products, "time", SimpleNamespace(perf_counter=lambda: now))
    assert cpu_products._bfloat16_is_faster.__wrapped__() is faster
