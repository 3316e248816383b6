"""What both clients need of httpx: one set of arguments, and httpx's errors as ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mole.calls import Call
from mole.errors import MoleConnectionError, UnusableKeyError

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_S = 310.0
"""A little more than the coordinator's own bound of 2.5 × 120 s, so that its 504 arrives first."""
CONNECT_TIMEOUT_S = 5.0
MAX_CONNECTIONS = 256
PREFIX = "/api/v1"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
NO_PROXY = {"http://": None, "https://": None}
"""httpx's `mounts` for which no proxy of the environment is asked."""
VISIBLE = re.compile(r"[\x21-\x7e]+")
USERINFO = re.compile(r"(?<=//)[^/?#]*@")


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the coordinator is, and how it is spoken to."""

    given_url: str
    api_key: str | None
    timeout_s: float

    @property
    def base_url(self) -> str:
        """The address without a slash at its end, and without a name and a password: it is told."""
        return USERINFO.sub("", self.given_url.rstrip("/"))

    def arguments(self) -> dict[str, Any]:
        """Of httpx's clients.

        Raises:
            UnusableKeyError: the key cannot stand in a header; it is not told.
        """
        import httpx

        key = (self.api_key or "").strip()  # a key out of a file ends with a line's end
        if key and VISIBLE.fullmatch(key) is None:
            raise UnusableKeyError
        return {
            "base_url": self.given_url.rstrip("/") + PREFIX,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": httpx.Timeout(self.timeout_s, connect=CONNECT_TIMEOUT_S),
            # A proxy that the environment names knows nothing of this machine's own services.
            "mounts": NO_PROXY if httpx.URL(self.given_url).host in LOOPBACK else None,
            "limits": httpx.Limits(
                max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS
            ),
        }

    def sent(self, call: Call[Any]) -> dict[str, Any]:
        """Of one request."""
        import httpx

        found: dict[str, Any] = {"content": call.content(), "headers": dict(call.headers)}
        if call.timeout_s is not None:
            found["timeout"] = httpx.Timeout(call.timeout_s, connect=CONNECT_TIMEOUT_S)
        return found

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raises httpx's errors as MoleConnectionError."""
        import httpx

        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise MoleConnectionError(self.base_url, _reason(error), unsent=True) from error
        except httpx.TimeoutException as error:
            raise MoleConnectionError(self.base_url, "the time is up") from error
        except httpx.LocalProtocolError as error:  # which quotes the header that it will not send
            raise MoleConnectionError(self.base_url, "the request is no valid HTTP") from error
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            raise MoleConnectionError(self.base_url, _reason(error), broken=True) from error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise MoleConnectionError(self.base_url, _reason(error)) from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
