"""pandas: a column of texts in, columns of answers out."""

from __future__ import annotations

import pytest

from mole import Mole, classify_frame
from tests.unit.mole.test_many import Service, service

pd = pytest.importorskip("pandas")
__all__ = ["service"]


def test_every_row_gets_its_answer_and_the_index_is_kept(service: Service):
    frame = pd.DataFrame({"review": ["a", None, "wrong", "b", " "], "n": range(5)}, index=list("vwxyz"))
    with Mole(service.url) as mole:
        found = classify_frame(frame, "review", "Good?", client=mole, task="a/b")
    assert list(found.index) == list("vwxyz")
    assert [None if pd.isna(label) else label for label in found["mole_result"]] == [
        "a",
        None,
        None,
        "b",
        None,
    ]
    assert found["mole_error"]["x"] == "No (400): wrong"
    assert found["mole_confidence"]["v"] == 0.91
    assert list(frame.columns) == ["review", "n"]
    assert service.batches[0][0] == {"text": "a", "description": "Good?", "options": {"task": "a/b"}}


def test_a_column_may_say_what_to_find_out(service: Service):
    frame = pd.DataFrame({"text": ["a", "b"], "ask": ["Which?", pd.NA]})
    with Mole(service.url) as mole:
        classify_frame(frame, description="Good?", description_column="ask", client=mole)
        assert [item["description"] for item in service.batches[0]] == ["Which?", "Good?"]
        with pytest.raises(KeyError):
            classify_frame(frame, "nothing", client=mole)


def test_columns_of_one_name_are_told_and_bytes_are_text(service: Service):
    with Mole(service.url) as mole:
        for given in ({"text": "text"}, {"text": "n", "description_column": "text"}):
            with pytest.raises(ValueError, match="several columns 'text'"):
                classify_frame(
                    pd.DataFrame([["a", "b", 1]], columns=["text", "text", "n"]), client=mole, **given
                )
        assert classify_frame(pd.DataFrame({"text": ["ä".encode()]}), client=mole)[
            "mole_result"
        ].tolist() == ["ä"]


def test_a_column_of_the_frame_is_never_doubled(service: Service):
    with Mole(service.url) as mole:
        once = classify_frame(pd.DataFrame({"text": ["a"]}), client=mole)
        with pytest.raises(ValueError, match="a column 'mole_result' of its own; choose another prefix"):
            classify_frame(once, client=mole)
        assert len(service.batches) == 1
        assert classify_frame(once, client=mole, prefix="again_")["again_result"].tolist() == ["a"]
