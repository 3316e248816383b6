from __future__ import annotations

import pytest

from moe_router.experts.formats import RULES, contradicts, find

TYPES = ("EMAIL", "URL", "IBAN", "CREDIT_CARD", "IP_ADDRESS")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("EMAIL", "maria.lopez+a@example.co.uk"),
        ("IBAN", "DE89 3704 0044 0532 0130 00"),
        ("IBAN", "GB82WEST12345698765432"),
        ("CREDIT_CARD", "4111 1111 1111 1111"),
        ("CREDIT_CARD", "378282246310005"),
        ("IP_ADDRESS", "192.168.0.17"),
        ("IP_ADDRESS", "2001:db8::8a2e:370:7334"),
        ("URL", "https://example.org/a?b=c"),
        ("URL", "www.example.org"),
    ],
)
def test_a_valid_value_is_found_with_its_place(kind: str, value: str) -> None:
    text = f"😀 see: {value}, thanks"
    [entity] = find(text, TYPES)
    assert (entity.type, entity.value) == (kind, value)
    assert text[entity.start : entity.end] == value


@pytest.mark.parametrize(
    "text",
    [
        "DE89 3704 0044 0532 0130 01",
        "4111 1111 1111 1112",
        "999.1.1.1",
        "12:30",
        "a@b",
        "version 1.2.3",
        "@user http",
    ],
)
def test_what_fails_its_check_is_not_found(text: str) -> None:
    assert find(text, TYPES) == []


def test_only_the_tasks_types_are_looked_for() -> None:
    assert find("a@example.org", ["PERSON", "IBAN"]) == []


@pytest.mark.timeout(20)  # a quadratic search takes minutes
@pytest.mark.parametrize("run", ["a", ":", "::.", "1:.", "a:a:", "a.", "(a", "@a", "www."])
def test_a_long_run_is_searched_once(run: str) -> None:
    text = run * (200_000 // len(run))
    assert find(f"{text} bob@example.org", TYPES)[-1].value == "bob@example.org"


def test_an_address_after_a_long_run_is_found_as_before() -> None:
    long = "a" * 65
    assert find(f"{long}@example.org", ["EMAIL"]) == []
    assert [e.value for e in find(f"{'a' * 64}@example.org", ["EMAIL"])] == [f"{'a' * 64}@example.org"]
    assert [e.value for e in find("(::ffff:192.168.100.200), ::1.", ["IP_ADDRESS"])] == [
        "::ffff:192.168.100.200",
    ]


def test_findings_do_not_overlap() -> None:
    [entity] = find("mail bob@www.example.org now", TYPES)
    assert entity.type == "EMAIL"


def test_a_rule_contradicts_only_its_own_type() -> None:
    assert contradicts("EMAIL", "Bob")
    assert not contradicts("PERSON", "Bob")
    assert not contradicts("EMAIL", "bob@example.org")
    assert all(0 < rule.precision < 1 for rule in RULES.values())
