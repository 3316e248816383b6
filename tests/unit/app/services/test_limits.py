from __future__ import annotations

from typing import Any

import pytest

from app.services.limits import Limits
from moe_router.contracts import ClassifyRequest
from moe_router.errors import RequestError

LIMITS = Limits(text=10, description=5)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"text": "x" * 11}, 413),
        ({"text": "x", "description": "x" * 6}, 413),
        ({"text": "x", "fields": {"a": "x" * 6, "b": "x" * 5}}, 413),
        ({"text": " \n\t\u3000"}, 400),
        ({"text": "a\0b"}, 400),
        ({"text": "a", "fields": {"q": "\0"}}, 400),
    ],
)
def test_what_is_refused(body: dict[str, Any], status: int) -> None:
    with pytest.raises(RequestError) as caught:
        LIMITS.check(ClassifyRequest.model_validate(body))
    assert caught.value.status == status


def test_lengths_are_code_points() -> None:
    LIMITS.check(ClassifyRequest(text="😀" * 10, description="élève"))
