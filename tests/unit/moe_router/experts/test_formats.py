from __future__ import annotations

from dataclasses import replace
from unicodedata import normalize

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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("邮箱是ann@example.com。", ["EMAIL ann@example.com"]),
        ("メールはann@example.comまで", ["EMAIL ann@example.com"]),
        ("“ann@example.com”, 'bob@example.org', `o'brien@example.net`",
         ["EMAIL ann@example.com", "EMAIL bob@example.org", "EMAIL o'brien@example.net"]),
        ("user=ann@example.com|bob@example.org", ["EMAIL ann@example.com", "EMAIL bob@example.org"]),
        ("https://x.org/?email=ann@example.com", ["URL https://x.org/?email=ann@example.com"]),
        ("AT61 1904 3002 3457 3201", ["IBAN AT61 1904 3002 3457 3201"]),
        ("BE68 5390 0754 7034 EUR 500", ["IBAN BE68 5390 0754 7034"]),
        ("LU28 0019 4006 4475 0000 IBAN, AT611904300234573201 BIC",
         ["IBAN LU28 0019 4006 4475 0000", "IBAN AT611904300234573201"]),
        ("BE68 5390 0754 7034 GB82 WEST 1234 5698 7654 32",
         ["IBAN BE68 5390 0754 7034", "IBAN GB82 WEST 1234 5698 7654 32"]),
        ("10.0.0.1:8080 and 10.0.0.2: refused", ["IP_ADDRESS 10.0.0.1", "IP_ADDRESS 10.0.0.2"]),
        ("请看https://example.com/abc，谢谢", ["URL https://example.com/abc"]),
        ("https://zh.wikipedia.org/wiki/中文維基。", ["URL https://zh.wikipedia.org/wiki/中文維基"]),
        ("(https://en.wikipedia.org/wiki/Foo_(bar)).", ["URL https://en.wikipedia.org/wiki/Foo_(bar)"]),
        ("2001:db8::/32 and fe80::", ["IP_ADDRESS 2001:db8::", "IP_ADDRESS fe80::"]),
        ("Kontakt:-ann@example.com, john&jane@example.com",
         ["EMAIL ann@example.com", "EMAIL john&jane@example.com"]),
        ("https://x.com/search?q=東京&x=1", ["URL https://x.com/search?q=東京&x=1"]),
        ("https://x.org/a\u200b", ["URL https://x.org/a"]),
        ("\u200fhttps://x.org/a\u200f.", ["URL https://x.org/a"]),
        ("https://x.org😊 https://x.org/a…", ["URL https://x.org", "URL https://x.org/a"]),
        ("https://x.org/a’s {u:https://x.org/{id}}", ["URL https://x.org/a", "URL https://x.org/{id}"]),
        ("[https://a.org](https://b.org)", ["URL https://a.org", "URL https://b.org"]),
    ],
)  # fmt: skip
def test_a_value_ends_where_its_sentence_goes_on(text: str, expected: list[str]) -> None:
    assert [f"{entity.type} {entity.value}" for entity in find(text, TYPES)] == expected


@pytest.mark.parametrize(
    "text",
    [
        "IMEI 490154203237518", "ID 8001015009087", "+4915200000008", "std::vector a::b ::", "1.2.3.4.5",
        "12:30:45", "de:ad:be:ef:00:11",
    ],
)  # fmt: skip
def test_what_only_looks_like_one_is_left_to_the_model(text: str) -> None:
    assert find(text, TYPES) == []


@pytest.mark.parametrize("gap", [" ", "-", ".", "\u00a0"])
def test_a_number_may_be_parted_in_any_way(gap: str) -> None:
    assert not contradicts("IBAN", gap.join(("DE89", "3704", "0044", "0532", "0130", "00")))


@pytest.mark.parametrize("gap", [" ", "-", ".", "\u00a0", "\u2009", "\u2013"])
def test_a_card_may_be_parted_in_any_way(gap: str) -> None:
    assert not contradicts("CREDIT_CARD", gap.join(("4556", "7375", "8689", "9855")))
    assert contradicts("CREDIT_CARD", gap.join(("4556", "7375", "8689", "9856")))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("CREDIT_CARD", "٤٥٥٦ ٧٣٧٥ ٨٦٨٩ ٩٨٥٥"),
        ("CREDIT_CARD", "４５５６ ７３７５ ８６８９ ９８５５"),
        ("CREDIT_CARD", "४५५६७३७५८६८९९८५५"),
        ("CREDIT_CARD", "4111\u00a01111\u00a01111\u00a01111"),
        ("CREDIT_CARD", "4111\u202f1111\u202f1111\u202f1111"),
        ("IP_ADDRESS", "１９２．１６８．０．１"),
        ("EMAIL", "ann＠example.co.jp"),
        ("IBAN", "ＤＥ８９３７０４００４４０５３２０１３０００"),
        ("IBAN", "DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000"),
        ("URL", "ｈｔｔｐ：／／a.b／c"),
    ],
)
def test_digits_of_any_script_and_full_width_signs_are_read(kind: str, value: str) -> None:
    text = f"see: {value}, thanks"
    [entity] = find(text, TYPES)
    assert (entity.type, entity.value, entity.start) == (kind, value, 5)
    assert not contradicts(kind, value)


def test_a_number_in_another_script_must_pass_its_check_too() -> None:
    assert contradicts("CREDIT_CARD", "٤٥٥٦ ٧٣٧٥ ٨٦٨٩ ٩٨٥٦")
    assert find("٤٥٥٦ ٧٣٧٥ ٨٦٨٩ ٩٨٥٦", TYPES) == []


def test_full_width_marks_of_a_sentence_stay_the_sentences() -> None:
    text = "邮箱：ann@example.com，网址（https://a.org／b）"
    assert [e.value for e in find(text, TYPES)] == ["ann@example.com", "https://a.org／b"]


@pytest.mark.parametrize(
    "value", ["4556 **** **** 9855", "XXXX-XXXX-XXXX-9855", "455673••••••9855", "**** 9855"]
)
def test_a_masked_card_is_the_models_to_tell(value: str) -> None:
    assert not contradicts("CREDIT_CARD", value)
    assert find(value, ["CREDIT_CARD"]) == []


@pytest.mark.parametrize("value", ["****", "xxxx xxxx", "45**", "4556 **** **** **** **** 9855"])
def test_not_every_mask_is_a_card(value: str) -> None:
    assert contradicts("CREDIT_CARD", value)


@pytest.mark.parametrize(
    "text",
    [
        "Écrivez à rené.dupont@exemple.fr ou andré@exemple.fr",
        "zoë-müller@exämple.de, o'brién@exemple.fr.",
        "é4111111111111111 éDE89370400440532013000 é10.0.0.1",
        "Việt.Nguyễn@ví-dụ.vn",
    ],
)
def test_accents_may_be_composed_or_not(text: str) -> None:
    composed = [(e.type, e.value) for e in find(normalize("NFC", text), TYPES)]
    apart = normalize("NFD", text)
    assert [(e.type, normalize("NFC", e.value)) for e in find(apart, TYPES)] == composed
    assert all(e.value == apart[e.start : e.end] for e in find(apart, TYPES))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("EMAIL", "john@corp.local"),
        ("EMAIL", "root@localhost"),
        ("EMAIL", "svc@printer.invalid"),
        ("EMAIL", "ann@mail.test"),
        ("URL", "http://intranet/wiki"),
        ("URL", "localhost:8000/x"),
    ],
)
def test_an_address_within_a_network_is_the_models_to_tell(kind: str, value: str) -> None:
    assert not contradicts(kind, value)
    assert value == "ann@mail.test" or find(value, [kind]) == []


@pytest.mark.parametrize("value", ["", "http://", "Ann Lee", "http://[::1"])
def test_a_url_has_a_host(value: str) -> None:
    assert contradicts("URL", value)


def test_a_card_of_no_known_issuer_may_still_be_one() -> None:
    assert not contradicts("CREDIT_CARD", "490154203237518")


def test_only_the_tasks_types_are_looked_for() -> None:
    assert find("a@example.org", ["PERSON", "IBAN"]) == []


@pytest.mark.timeout(20)  # a quadratic search takes minutes
@pytest.mark.parametrize(
    "run",
    [
        "a",
        ":",
        "::.",
        "1:.",
        "a:a:",
        "a.",
        "(a",
        "@a",
        "www.",
        "1.1.1.1=",
        "::1 ",
        "AB12 ",
        "https://a.b/))",
        "e\u0301",
        "e\u0301\u0301\u0301\u0301",
        "e\u0301.",
    ],
)
def test_a_long_run_is_searched_once(run: str) -> None:
    text = run * (200_000 // len(run))
    assert find(f"{text} bob@example.org", TYPES)[-1].value == "bob@example.org"


def test_an_address_after_a_long_run_is_found_as_before() -> None:
    long = "a" * 65
    assert find(f"{long}@example.org", ["EMAIL"]) == []
    assert [e.value for e in find(f"{'a' * 64}@example.org", ["EMAIL"])] == [f"{'a' * 64}@example.org"]
    assert [e.value for e in find("(::ffff:192.168.100.200), ::1.", ["IP_ADDRESS"])] == [
        "::ffff:192.168.100.200", "::1",
    ]  # fmt: skip


def test_findings_do_not_overlap() -> None:
    [entity] = find("mail bob@www.example.org now", TYPES)
    assert entity.type == "EMAIL"


def test_a_rule_contradicts_only_its_own_type() -> None:
    assert contradicts("EMAIL", "Bob")
    for word in ("hello", "London", "Dr.", "12:30"):
        assert contradicts("URL", word)
    assert not contradicts("PERSON", "Bob")
    assert not contradicts("EMAIL", "bob@example.org")
    assert all(0 < rule.precision < 1 for rule in RULES.values())


def test_a_foreign_sign_has_nothing_judged_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []

    def valid(value: str) -> bool:
        judged.append(value)
        return rule.valid(value)

    rule = RULES["IBAN"]
    monkeypatch.setitem(RULES, "IBAN", replace(rule, valid=valid))
    text = " ".join(f"DE12 {number:04}" for number in range(1000))
    good = "DE89 3704 0044 0532 0130 00"
    assert [e.value for e in find(f"{text}, {good}", TYPES)] == [good]
    once = len(judged)
    # Of two foreign signs one is part of a value.
    found = find(f"{text}, {good} ١, {good.replace('3', '３')}", TYPES)
    assert [e.value for e in found] == [good, good.replace("3", "３")]
    assert len(judged) - once <= once + 9


def test_nothing_too_short_for_an_iban_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []

    def valid(value: str) -> bool:
        judged.append(value)
        return False

    monkeypatch.setitem(RULES, "IBAN", replace(RULES["IBAN"], valid=valid))
    assert find("DE12 3704 0044 0532 0130 00, NO93 8601 1117 947 EUR", ["IBAN"]) == []
    assert judged == [
        "DE12 3704 0044 0532 0130 00",
        "DE12 3704 0044 0532 0130",
        "DE12 3704 0044 0532",
        "NO93 8601 1117 947",
    ]
