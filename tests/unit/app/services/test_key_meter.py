"""A key's rate and quota, on clocks of the test's own."""

from __future__ import annotations

import pytest

from app.services.key_meter import KeyMeter
from app.storage.key_records import DAY_S
from moe_router.errors import QuotaExceededError, RateLimitError
from tests.stubs.keys import key_record

NOON = 20_000 * DAY_S + DAY_S / 2


def test_the_minutes_requests_may_come_at_once_and_then_one_by_one() -> None:
    meter, record = KeyMeter(), key_record(rate_per_minute=6)
    for _ in range(6):
        meter.take_request(record, 100.0, NOON)
    with pytest.raises(RateLimitError) as refused:
        meter.take_request(record, 101.0, NOON)
    assert refused.value.retry_after_s == 9
    meter.take_request(record, 110.0, NOON)
    with pytest.raises(RateLimitError):
        meter.take_request(record, 110.1, NOON)
    for _ in range(6):  # an idle hour saves up no more than a minute
        meter.take_request(record, 3700.0, NOON)
    with pytest.raises(RateLimitError):
        meter.take_request(record, 3700.0, NOON)


def test_without_limits_everything_passes_and_is_counted() -> None:
    meter, record = KeyMeter(), key_record()
    for _ in range(1000):
        meter.take_request(record, 0.0, NOON)
        meter.take_texts(record, 1, NOON)
    usage = meter.collect()
    assert usage is not None
    assert (usage.texts, usage.day, usage.at) == (1000, 20_000, NOON)
    assert meter.collect() is None


def test_the_quota_counts_what_the_database_knows_and_what_it_does_not_yet() -> None:
    meter = KeyMeter()
    record = key_record(quota_per_day=10, usage_day=20_000, usage_count=6)
    meter.take_texts(record, 3, NOON)
    with pytest.raises(QuotaExceededError) as refused:
        meter.take_texts(record, 2, NOON)
    assert refused.value.retry_after_s == DAY_S / 2
    meter.take_texts(record, 1, NOON)
    with pytest.raises(QuotaExceededError):
        meter.take_texts(record, 1, NOON)
    meter.take_texts(record, 10, NOON + DAY_S)  # another day
    with pytest.raises(QuotaExceededError):
        meter.take_texts(record, 1, NOON + DAY_S)


def test_what_is_given_back_can_be_taken_again_also_where_the_database_counts_it_already() -> None:
    meter, record = KeyMeter(), key_record(quota_per_day=10)
    for written in (False, True):
        meter.take_texts(record, 10, NOON)
        if written:
            taken = meter.collect()
            assert taken is not None
            meter.written()
            record = key_record(quota_per_day=10, usage_day=20_000, usage_count=taken.texts)
        meter.give_back_texts(10, NOON)
        meter.take_texts(record, 10, NOON)
        with pytest.raises(QuotaExceededError):
            meter.take_texts(record, 1, NOON)
        meter.give_back_texts(10, NOON)
    usage = meter.collect()
    assert usage is not None
    assert record.usage_count + usage.texts == 0


def test_what_was_taken_yesterday_gives_nothing_back_today() -> None:
    meter, record = KeyMeter(), key_record(quota_per_day=10)
    meter.take_texts(record, 10, NOON)
    meter.give_back_texts(10, NOON + DAY_S)
    meter.take_texts(record, 10, NOON + DAY_S)
    with pytest.raises(QuotaExceededError):
        meter.take_texts(record, 1, NOON + DAY_S)


def test_what_could_not_be_written_is_counted_on() -> None:
    meter, record = KeyMeter(), key_record(quota_per_day=10)
    meter.take_request(record, 0.0, NOON)
    meter.take_texts(record, 4, NOON)
    usage = meter.collect()
    assert usage is not None
    meter.take_texts(record, 3, NOON)
    meter.put_back(usage)
    with pytest.raises(QuotaExceededError):
        meter.take_texts(record, 4, NOON)
    again = meter.collect()
    assert again is not None
    assert again.texts == 7


def test_a_look_counts_nothing_and_what_is_taken_without_a_request_is_written() -> None:
    meter, record = KeyMeter(), key_record(quota_per_day=10)
    for _ in range(3):
        meter.check_texts(record, 10, NOON)
    with pytest.raises(QuotaExceededError):
        meter.check_texts(record, 11, NOON)
    meter.take_texts(record, 10, NOON)
    usage = meter.collect()
    assert usage is not None
    assert usage.texts == 10


def test_what_is_being_written_still_counts() -> None:
    meter, record = KeyMeter(), key_record(quota_per_day=10)
    meter.take_request(record, 0.0, NOON)
    meter.take_texts(record, 10, NOON)
    assert meter.collect() is not None
    with pytest.raises(QuotaExceededError):
        meter.take_texts(record, 1, NOON)
    meter.written()
    known = key_record(quota_per_day=11, usage_day=20_000, usage_count=10)
    meter.take_texts(known, 1, NOON)  # what was written counts once
    with pytest.raises(QuotaExceededError):
        meter.take_texts(known, 1, NOON)
