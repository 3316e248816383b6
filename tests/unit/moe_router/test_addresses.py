from __future__ import annotations

import pytest

from moe_router.addresses import http_address


def test_an_address_ends_without_a_slash() -> None:
    assert http_address("https://llm:8080/v1/", "KEY") == "https://llm:8080/v1"


@pytest.mark.parametrize(
    "url", ["llm:8080", "http://", "http://llm:0", "http://[fd00::7", "http://llm/v1?key=x"]
)
def test_what_is_none_is_named(url: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        http_address(url, "KEY")


def test_a_password_is_not_repeated_and_its_place_is_named() -> None:
    with pytest.raises(ValueError, match="give the secret as KEY") as caught:
        http_address("http://me:hunter2@llm:8080/v1", "KEY")
    assert "hunter2" not in str(caught.value)
