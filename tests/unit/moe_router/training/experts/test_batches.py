from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moe_router.training.experts.batches import batches
from moe_router.training.experts.examples import Example


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(1, 100), st.integers(0, 3))
def test_every_example_is_in_one_batch_and_batches_keep_to_the_budget(
    lengths: list[int], budget: int, epoch: int
) -> None:
    examples = [Example((0,) * length, ()) for length in lengths]
    made = batches(examples, budget, 5, epoch)
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    assert made == batches(examples, budget, 5, epoch)


def test_epochs_differ() -> None:
    examples = [Example((0,) * 4, ())] * 40
    assert batches(examples, 16, 0, 0) != batches(examples, 16, 0, 1)
