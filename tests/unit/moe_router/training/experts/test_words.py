from __future__ import annotations

from moe_router.training.experts.words import choose_words

KNOWN = ("top", "up", "card", "failed", "pending", "one", "two")


def encode(text: str) -> tuple[int, ...]:
    """Known words and pairs of letters are one token, anything else a token a letter."""
    word = text.strip()
    if word in KNOWN or (len(word) == 2 and word.isalpha()):
        return (sum(ord(c) * 1000**i for i, c in enumerate(word)),)
    return tuple(ord(c) for c in text)


def test_labels_that_part_at_their_first_token_stand_for_themselves() -> None:
    assert choose_words(["one", "two"], encode, " ", 10) is None


def test_each_label_gets_a_word_of_its_own_where_that_can_be() -> None:
    labels = ["top_up", "top_up_failed", "pending_top_up", "card_failed"]
    words = choose_words(labels, encode, " ", 10)
    assert words is not None
    assert len(set(words)) == 4
    for label, word in zip(labels, words, strict=True):
        assert word in label.split("_")


def test_labels_without_a_word_left_get_a_spare_one() -> None:
    words = choose_words(["card_card", "card", "cardcard"], encode, " ", 10)
    assert words is not None
    assert len({encode(" " + word) for word in words}) == 3
    assert all(len(encode(" " + word)) == 1 for word in words)


def test_a_tokenizer_without_words_of_one_token_leaves_the_labels_as_they_are() -> None:
    assert choose_words(["aa", "ab"], lambda text: tuple(ord(c) for c in text), " ", 10) is None
