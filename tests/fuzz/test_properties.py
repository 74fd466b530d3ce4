"""Every parser under property-based fuzz; `make fuzz` makes many more cases, and guided ones."""

from __future__ import annotations

import re

import pytest
from fuzz_property import run_property
from fuzz_targets import TARGETS

CASES = 200


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_whatever_arrives_is_refused_or_is_what_it_says(name):
    meter = run_property(name, CASES)
    assert meter.cases >= CASES
    assert meter.unreached == set()


def test_the_page_names_every_target_and_no_other(repository):
    page = (repository / "docs" / "reference" / "fuzz.md").read_text(encoding="utf-8")
    table = page.partition("| target |")[2].partition("\n\n")[0]
    named = {
        word
        for row in table.splitlines()[2:]
        for word in re.findall(r"`([a-z0-9-]+)`", row.split("|")[1])
    }
    assert named == set(TARGETS)
