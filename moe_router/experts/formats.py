"""Entities that a checksum or a grammar tells better than a language model does.

Each rule finds candidates by their shape and lets a well-kept library judge them: python-stdnum (IBAN,
payment cards), email-validator, ipaddress and urllib of the standard library. A rule is used
only where the task's types name it.

Digits of any script and full-width signs are read as the ASCII ones that they stand for; what is found is
told as it stands in the text.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from email_validator import EmailNotValidError, validate_email
from stdnum import iban, luhn

from moe_router.contracts import Entity
from moe_router.experts.spans import Spans
from moe_router.experts.text_words import ACCENTS, INVISIBLE, SYMBOLS, UNSPACED

SHORTEST_IBAN = 15
"""Characters of Norway's."""
_LETTERS_AS_NUMBERS = str.maketrans({chr(ord("A") + i): str(10 + i) for i in range(26)})


@dataclass(frozen=True, slots=True)
class Rule:
    """How to find and judge one kind of entity.

    Attributes:
        shape: what a candidate looks like.
        valid: whether a value can be one at all.
        precision: the share of its findings that were right on a training set of personal data, at most 0.99
            (all of 71 cards, 31 addresses, 17 URLs, 9 IBANs, 5 IP addresses).
        certain: whether a valid one is hardly anything else.
        cuts: the values that a candidate may be, the likeliest first: some of its last characters may go.
        possible: whether a value that a model calls one can be; where it is None as `valid`.
    """

    shape: re.Pattern[str]
    valid: Callable[[str], bool]
    precision: float
    certain: Callable[[str], bool] = lambda value: True
    cuts: Callable[[str], Iterable[str]] = lambda value: (value,)
    possible: Callable[[str], bool] | None = None

    def findings(self, text: str, judged: dict[str, str | None]) -> Iterator[tuple[int, str]]:
        """The start and the value of each, in order; IBANs may overlap.

        To find candidates takes little time, to judge them much: `judged` keeps what each came to.
        """
        for match in self.shape.finditer(text):
            candidate = match["value"]
            if candidate not in judged:
                judged[candidate] = self._judge(candidate)
            value = judged[candidate]
            if value is not None:
                yield match.start("value"), value

    def _judge(self, candidate: str) -> str | None:
        cuts = (value for value in self.cuts(candidate) if self.valid(value) and self.certain(value))
        return next(cuts, None)


_FOREIGN = re.compile("[^\\D0-9]|[Ａ-Ｚａ-ｚ＠．－＿／]|：(?=／)")
"""Digits, and what of full width is part of a value; brackets, commas and the like are the sentence's."""


def _ascii(text: str) -> str:
    """The text with these signs as their ASCII counterparts: as long as it was."""
    return text if text.isascii() else _FOREIGN.sub(_counterpart, text)


def _counterpart(match: re.Match[str]) -> str:
    digit = unicodedata.decimal(match[0], None)
    return str(digit) if digit is not None else unicodedata.normalize("NFKC", match[0])


def _is_email(value: str) -> bool:
    try:
        validate_email(value, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return False
    return True


def _may_be_email(value: str) -> bool:
    """Also of a network of one's own, whose domain the library refuses: root@localhost, ann@corp.local."""
    return _is_email(f"{value}.org")


def _ungrouped(value: str) -> str:
    return re.sub(r"[\W_]", "", value)


def _is_card(value: str) -> bool:
    digits = _ungrouped(value)
    return digits.isascii() and digits.isdigit() and 12 <= len(digits) <= 19 and bool(luhn.is_valid(digits))


_MASKED = re.compile(r"(?=.{8,19}\Z)(?=.*\d)\d*[*•●xX#]{4,}\d*")


def _may_be_card(value: str) -> bool:
    """Also one of which most digits are hidden: 4556 **** **** 9855, XXXX-9855."""
    return _is_card(value) or _MASKED.fullmatch(re.sub(r"[\s.‐-―-]", "", value)) is not None


_ISSUED = re.compile(
    r"""(?x)
    4(?:\d{12}|\d{15}|\d{18})                                                        # Visa
    |(?=\d{16}\Z)(?:5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720|35)\d+                # Mastercard, JCB
    |3[47]\d{13}                                                                      # American Express
    |(?=\d{14,19}\Z)(?:30[0-5]|3095|36|3[89])\d+                                     # Diners Club
    |(?=\d{16,19}\Z)(?:6011|64[4-9]|65|62|81|220[0-4])\d+                            # Discover, UnionPay, Mir
    |(?=\d{12,19}\Z)(?:5018|5020|5038|5893|6304|6759|676[1-3])\d+                    # Maestro
    """
)
"""How card numbers in use begin, and their lengths (ISO/IEC 7812); one number in ten passes Luhn's check."""


def _is_issued(value: str) -> bool:
    return _ISSUED.fullmatch(_ungrouped(value)) is not None


def _is_iban(value: str) -> bool:
    plain = _ungrouped(value).upper()
    # The remainder (ISO 7064, mod 97-10) is soon reckoned, and wrong for nearly all that is no IBAN.
    if len(plain) < SHORTEST_IBAN or not (plain.isascii() and plain.isalnum()):
        return False
    if int((plain[4:] + plain[:4]).translate(_LETTERS_AS_NUMBERS)) % 97 != 1:
        return False
    return bool(iban.is_valid(plain, check_country=False))


def _without_last_groups(value: str) -> Iterator[str]:
    """What follows a number may look like a group of it: BIC, EUR 500."""
    yield value
    for gaps_before, gap in reversed([*enumerate(re.finditer(_GAP, value))]):
        if gap.start() - gaps_before < SHORTEST_IBAN:
            break
        yield value[: gap.start()]


def _is_ip(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _with_and_without_the_sentences_marks(value: str) -> Iterator[str]:
    """Some addresses end with a colon."""
    yield value
    yield from _without_the_sentences_marks(value)


def _has_digit(value: str) -> bool:
    return any(sign.isdigit() for sign in value)


def _host(url: str) -> str:
    try:
        return urlsplit(url if "://" in url else f"http://{url}").hostname or ""
    except ValueError:
        return ""


def _is_url(value: str) -> bool:
    return "." in _host(value)


def _may_be_url(value: str) -> bool:
    """Also of a network of one's own: http://intranet/wiki, localhost/x; a word alone is none."""
    return len(_host(value).split()) == 1 and any(sign in value.rstrip(".") for sign in "./")


def _without_the_sentences_marks(value: str) -> Iterator[str]:
    """A full stop at the end is the sentence's, and a bracket that is not opened within."""
    open_ = {end: value.count(begin) - value.count(end) for begin, end in ("()", "[]", "{}")}
    end = len(value)
    while end and (value[end - 1] in ".,;:!?*_~`" or open_.get(value[end - 1], 0) < 0):
        end -= 1
        if value[end] in open_:
            open_[value[end]] += 1
    yield value[:end]


# Searching is linear in the text: a candidate is looked for where a run of its characters begins, not at each
# of them, or no further than a valid one reaches (64 characters before the @, 45 of an IP address).
# Scripts without spaces are the sentence's: in them a character beside an address is seldom part of it.
# A letter's accents may stand behind it.
_GAP = "[ \u00a0\u202f]"
_ACCENT = f"[{ACCENTS}]"
_SIGN = rf"[^\W{UNSPACED}]"
_MARK = r"[.%+&'’-]"
_NAME = rf"[^\W_{UNSPACED}]"


def _not_after(sign: str, then: str = "") -> str:
    return "".join(f"(?<!{sign}{_ACCENT * marks}{then})" for marks in range(4))


_EMAIL = Rule(
    re.compile(
        rf"{_not_after(_SIGN)}{_not_after(_SIGN, _MARK)}"
        rf"(?P<value>{_SIGN}{_ACCENT}{{0,3}}(?:{_SIGN}{_ACCENT}{{0,3}}|{_MARK}){{0,63}}"
        rf"@(?:(?:{_NAME}{_ACCENT}{{0,3}}|-){{1,63}}\.){{1,10}}"
        rf"(?:[^\W\d_{UNSPACED}]{_ACCENT}{{0,3}}){{2,63}})(?!{_SIGN}|{_ACCENT})"
    ),
    _is_email,
    0.99,
    possible=_may_be_email,
)
_CARD_GROUPS = (
    r"\d{4}(?P<gap>[ \u00a0\u202f-])"
    r"(?:\d{4}(?P=gap)\d{4}(?P=gap)\d{4}(?:(?P=gap)\d{3})?|\d{6}(?P=gap)\d{4,5})"
)
_CARD = Rule(
    re.compile(rf"(?<![\w{ACCENTS}+-])(?P<value>\d{{12,19}}|{_CARD_GROUPS})(?![\w-])"),
    _is_card,
    0.99,
    _is_issued,
    possible=_may_be_card,
)
_IBAN = Rule(
    re.compile(
        rf"(?<!{_ACCENT})\b(?=(?P<value>[A-Z]{{2}}\d{{2}}(?:{_GAP}?[A-Z0-9]{{4}}){{2,7}}"
        rf"(?:{_GAP}?[A-Z0-9]{{1,3}})?\b))[A-Z]{{2}}\d{{2}}"
    ),
    _is_iban,
    0.99,
    cuts=_without_last_groups,
)
_IP = Rule(
    re.compile(
        rf"(?<![\w{ACCENTS}.:])"
        r"(?P<value>\d{1,3}(?:\.\d{1,3}){3}(?!\.?\w)"
        r"|(?=[0-9A-Fa-f:.]{2,45}(?![\w:]))[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f.]*(?![\w:]))"
    ),
    _is_ip,
    0.99,
    _has_digit,
    _with_and_without_the_sentences_marks,
)
_URL = Rule(
    re.compile(
        rf"(?P<value>(?:https?://|www\.)(?:(?!\]\()[^\s<>\"'“”„«»{UNSPACED}、。，！？；：「」『』（）【】《》‘’…{INVISIBLE}{SYMBOLS}]"
        rf"|(?<=[/=&?_-])[{UNSPACED}]+)*)",
        re.IGNORECASE,
    ),
    _is_url,
    0.99,
    cuts=_without_the_sentences_marks,
    possible=_may_be_url,
)

RULES: dict[str, Rule] = {
    "EMAIL": _EMAIL,
    "EMAIL_ADDRESS": _EMAIL,
    "CREDIT_CARD": _CARD,
    "IBAN": _IBAN,
    "IBAN_CODE": _IBAN,
    "IP_ADDRESS": _IP,
    "URL": _URL,
}


def find(text: str, types: Iterable[str]) -> list[Entity]:
    """What the rules of these types find, in order; of findings that overlap the longest stays."""
    rules = {name: RULES[name] for name in types if name in RULES}
    read = _ascii(text)
    taken = Spans()
    judged: dict[str, dict[str, str | None]] = {name: {} for name in rules}
    found: list[Entity] = []
    for form in (text, read) if read != text else (text,):  # what stands there as it is goes first
        findings = [
            (start, start + len(value), name)
            for name, rule in rules.items()
            for start, value in rule.findings(form, judged[name])
        ]
        found += [
            Entity(type=name, start=start, end=end, value=text[start:end], confidence=rules[name].precision)
            for start, end, name in sorted(findings, key=lambda found: found[0] - found[1])
            if taken.take(start, end)
        ]
    return sorted(found, key=lambda entity: entity.start)


def contradicts(type_name: str, value: str) -> bool:
    """Whether a rule says that the value is not of the type that a model gave it."""
    rule = RULES.get(type_name)
    return rule is not None and not (rule.possible or rule.valid)(_ascii(value))
