from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from moe_router import members
from moe_router.contracts import ClassifyAnswer, ExpertRequest, RouteStep, Timings


@pytest.mark.parametrize(
    ("plain", "model"),
    [
        (members.StepMembers, RouteStep),
        (members.TimingsMembers, Timings),
        (members.AnswerMembers, ClassifyAnswer),
        (members.ExpertMembers, ExpertRequest),
    ],
)
def test_they_have_the_members_of_their_models(plain: Any, model: type[BaseModel]) -> None:
    assert list(plain.__annotations__) == list(model.model_fields)
    needed = {name for name, field in model.model_fields.items() if field.is_required()}
    assert needed <= plain.__required_keys__
