"""The average of weights: what it is after some steps, and that the weights themselves go on as they were."""

from __future__ import annotations

import pytest
import torch

from moe_router.training.experts.weight_average import DECAY, WeightAverage


def trained(*values: float) -> tuple[torch.nn.Parameter, WeightAverage]:
    weights = torch.nn.Parameter(torch.zeros(1))
    average = WeightAverage({"a": weights})
    for step, value in enumerate(values, start=1):
        weights.data.fill_(value)
        average.take(step)
    return weights, average


def test_the_first_steps_count_alike_and_what_was_before_them_not_at_all() -> None:
    _, average = trained(1.0, 3.0, 8.0)
    assert average.values["a"].item() == pytest.approx(4.0)


def test_later_steps_push_out_earlier_ones() -> None:
    steps = 1000
    _, average = trained(*[0.0] * (steps - 1), 1.0)
    assert average.values["a"].item() == pytest.approx(1 - DECAY)


def test_in_force_only_within_the_block_also_where_it_fails() -> None:
    weights, average = trained(1.0, 3.0)

    def failing() -> None:
        with average.in_force():
            assert weights.item() == pytest.approx(2.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert weights.item() == 3.0
    assert average.values["a"].item() == pytest.approx(2.0)
