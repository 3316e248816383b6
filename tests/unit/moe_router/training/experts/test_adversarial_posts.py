"""Posts of other datasets, in the files that their authors publish."""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_router.errors import RequestError
from moe_router.training.experts.adversarial_posts import MOST_LETTERS, MOST_WORDS, gahd, hatemoji
from moe_router.training.experts.examples import Row

GAHD = """gahd_id,text,label,round,split,contrastive_gahd_id
1,"Ein Satz,
der weitergeht",0,R1,train,
2,Noch einer,1,R2,test,1
3,  ,1,R2,test,
"""
HATEMOJI = "entry_id,text,type,label_gold\n0,one 🐀,none,0\n1,two 🐀,derogation,1\n"


def test_posts_of_all_parts_with_their_labels_in_our_words(tmp_path: Path) -> None:
    path = tmp_path / "gahd.csv"
    path.write_text(GAHD, encoding="utf-8")
    assert gahd(path) == [
        Row("Ein Satz, der weitergeht", "de", "non-hateful"),
        Row("Noch einer", "de", "hateful"),
    ]


def test_emoji_are_read_of_all_three_files(tmp_path: Path) -> None:
    for part in ("train", "validation", "test"):
        (tmp_path / f"{part}.csv").write_text(HATEMOJI.replace("🐀", part), encoding="utf-8")
    rows = hatemoji(tmp_path)
    assert [row.text for row in rows] == [
        "one train", "two train", "one validation", "two validation", "one test", "two test",
    ]  # fmt: skip
    assert {(row.language, row.label, row.text[:3]) for row in rows} == {
        ("en", "non-hateful", "one"),
        ("en", "hateful", "two"),
    }


def test_long_posts_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "gahd.csv"
    texts = [" ".join("a" * count) for count in (MOST_WORDS, MOST_WORDS + 1)]
    texts += ["a" * count for count in (MOST_LETTERS, MOST_LETTERS + 1)]
    path.write_text("text,label\n" + "".join(f"{text},1\n" for text in texts), encoding="utf-8")
    assert [row.text for row in gahd(path)] == texts[::2]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(b"text,label\n", id="no row"),
        pytest.param(b"text,kind\na,1\n", id="no label"),
        pytest.param(b"text,label\na,2\n", id="another label"),
        pytest.param(b"text,label\na\n", id="a short line"),
        pytest.param(b"label\n1\n", id="no text"),
        pytest.param(b"text,label\n\xff,1\n", id="not UTF-8"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "gahd.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RequestError, match=r"gahd\.csv: \w+"):
        gahd(path)
