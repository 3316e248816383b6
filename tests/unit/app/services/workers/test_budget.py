from __future__ import annotations

from app.services.workers.budget import RetryBudget


def test_the_first_failover_is_always_free() -> None:
    budget = RetryBudget(tokens=0)
    assert all(budget.allows(1) for _ in range(1000))


def test_what_is_no_failover_always_costs() -> None:
    budget = RetryBudget(tokens=1)
    assert budget.spend()
    assert not budget.spend()
    assert budget.allows(1)


def test_further_retries_cost_what_requests_bring() -> None:
    budget = RetryBudget(per_request=0.5, capacity=1, tokens=1)
    assert budget.allows(2)
    assert not budget.allows(2)
    budget.request()
    assert not budget.allows(3)
    budget.request()
    assert budget.allows(3)
    for _ in range(100):
        budget.request()
    assert budget.tokens == 1
