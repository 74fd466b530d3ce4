"""The page's own files, as far as they can be judged without a browser."""

from __future__ import annotations

import importlib.resources
import itertools
import re

import pytest

PAGE = importlib.resources.files("apsber_bluesky.dashboard")
STYLE = (PAGE / "style.css").read_text(encoding="utf-8")
TEXTS = ("text", "muted", "accent", "pass", "warn", "fail")
GROUNDS = ("ground", "card", "raised")


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


DARK, LIGHT = (colours(block) for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[:2])


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [DARK, LIGHT], ids=["dark", "light"])
def test_everything_can_be_read_by_day_and_by_night(scheme):
    pairs = [*itertools.product(TEXTS, GROUNDS), ("on-accent", "accent")]
    faint = {pair: contrast(*(scheme[name] for name in pair)) for pair in pairs}
    assert len(faint) == 19
    assert {pair: value for pair, value in faint.items() if value < 4.5} == {}


def test_scripts_make_no_html_of_text_and_fetch_nothing_from_elsewhere():
    scripts = [file for file in PAGE.iterdir() if file.name.endswith(".js")]
    assert len(scripts) >= 6
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                     "new Function", "localStorage", "document.cookie", "://"):  # fmt: skip
            found = text.replace("http://www.w3.org/2000/svg", "")
            assert word not in found, f"{script.name}: {word}"


def test_every_field_of_the_page_has_a_name():
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    fields = re.findall(r"<(?:input|select|progress)\b[^>]*>", page)
    assert len(fields) > 7
    named = re.findall(r'for="([\w-]+)"', page)
    for field in fields:
        own = re.search(r'id="([\w-]+)"', field)
        inside = re.search(rf"<label[^>]*>(?:(?!</label>).)*{re.escape(field)}", page)
        assert inside or "aria-label" in field or (own and own[1] in named), field
