"""What one API key has used: requests of the minute in this process, texts of the day in all of them."""

from __future__ import annotations

import math

from app.storage.key_records import DAY_S, KeyRecord, Usage, day_of
from moe_router.errors import QuotaExceededError, RateLimitError

MINUTE_S = 60.0


class KeyMeter:
    """Counts for one key; used from one event loop.

    The rate is a token bucket of one minute's requests. The texts of the day are those that the database has
    counted, as it was last read, and those that this process has not added to it yet: several processes may
    together pass the quota by what they let in between two readings.
    """

    def __init__(self) -> None:
        self._tokens: float | None = None
        self._filled_at = 0.0
        self._texts = 0
        self._collected = 0
        self._day = 0
        self._used_at: float | None = None

    def take_request(self, record: KeyRecord, clock: float, now: float) -> None:
        """Counts a request.

        Args:
            record: the key's row as it was last read.
            clock: seconds of a monotonic clock.
            now: Unix time in seconds.

        Raises:
            RateLimitError: the minute's requests are used up.
        """
        self._used_at = now
        rate = record.rate_per_minute
        if rate is None:
            return
        if self._tokens is None:
            self._tokens = float(rate)
        else:
            refilled = self._tokens + (clock - self._filled_at) * rate / MINUTE_S
            self._tokens = min(refilled, float(rate))
        self._filled_at = clock
        if self._tokens < 1:
            wait_s = (1 - self._tokens) * MINUTE_S / rate
            raise RateLimitError(f"Your key may make {rate} requests a minute.", max(math.ceil(wait_s), 1))
        self._tokens -= 1

    def check_texts(self, record: KeyRecord, texts: int, now: float) -> None:
        """Whether so many texts are left; counts none.

        Raises:
            QuotaExceededError: so many are not left of the day's.
        """
        day = self._begin_day(now)
        quota = record.quota_per_day
        known = record.used_on(day) + self._collected + self._texts
        if quota is not None and known + texts > quota:
            left_s = (day + 1) * DAY_S - now
            raise QuotaExceededError(
                f"Your key may send {quota} texts a day; the day ends at midnight UTC.", math.ceil(left_s)
            )

    def take_texts(self, record: KeyRecord, texts: int, now: float) -> None:
        """Counts texts that are to be classified or routed.

        Raises:
            QuotaExceededError: so many are not left of the day's.
        """
        self.check_texts(record, texts, now)
        self._texts += texts
        self._used_at = now

    def give_back_texts(self, texts: int, now: float) -> None:
        """Counts off texts that were taken for nothing a moment ago; the database may count them already."""
        day = self._day
        if self._begin_day(now) == day:
            self._texts -= texts
            self._used_at = self._used_at or now

    def _begin_day(self, now: float) -> int:
        day = day_of(now)
        if day != self._day:
            self._day, self._texts, self._collected = day, 0, 0
        return day

    def collect(self) -> Usage | None:
        """What the database does not know yet; `written` or `put_back` follows. None: nothing."""
        if self._used_at is None:
            return None
        usage = Usage(self._texts, self._day, self._used_at)
        self._collected += self._texts
        self._texts, self._used_at = 0, None
        return usage

    def written(self) -> None:
        """A record that was read after what was collected had been written counts it from now on."""
        self._collected = 0

    def put_back(self, usage: Usage) -> None:
        """What was collected could not be written."""
        if usage.day == self._day:
            self._collected -= usage.texts
            self._texts += usage.texts
        self._used_at = self._used_at or usage.at
