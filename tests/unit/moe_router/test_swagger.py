"""The documentation's page and files, from this machine alone."""

from __future__ import annotations

import re

import pytest

from moe_router import swagger


def test_the_page_names_no_host_and_only_files_that_there_are():
    page = swagger.page("A title").decode()
    assert "<title>A title</title>" in page
    assert "//" not in page
    assert b"//" not in swagger.SCRIPT
    asked = {address.removeprefix("docs/") for address in re.findall(r'(?:src|href)="([^"]*)"', page)}
    assert asked == {*swagger.FILES, "start.js"}


@pytest.mark.parametrize("name", swagger.FILES)
def test_its_files_are_there(name: str):
    found = swagger.file(name)
    assert found is not None
    assert found.stat().st_size > 100


@pytest.mark.parametrize("name", ["redoc.standalone.js", "../consts.py", "", "start.js"])
def test_nothing_else_is_served(name: str):
    assert swagger.file(name) is None
