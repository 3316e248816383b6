"""The address of a service, as an operator writes it into a file."""

from __future__ import annotations

from urllib.parse import urlsplit


def http_address(value: str, setting: str) -> str:
    """The address without a slash at its end.

    Args:
        value: what the file says.
        setting: where a secret belongs instead: addresses are told in logs and by `/health`.

    Raises:
        ValueError: it is none, or holds a password, which the message does not repeat.
    """
    if "@" in value:
        raise ValueError(f"a user name or password has no place in the URL; give the secret as {setting}")
    try:
        parts = urlsplit(value)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError(f"{value!r} is not a URL: {error}") from error
    if not sound or parts.query or parts.fragment:
        raise ValueError(f"{value!r} is not of the form http://host:port")
    return value.rstrip("/")
