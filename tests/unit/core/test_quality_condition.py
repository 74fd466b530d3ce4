from __future__ import annotations

import pytest

from apsber_bluesky.core import InputError, QualityCondition, Verdict

METRICS = [
    {"name": "resolution", "value": 4.0, "verdict": "pass"},
    {"name": "drift", "value": None, "verdict": "fail"},
]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("resolution<4", False),
        ("resolution <= 4.0", True),
        ("resolution>3.9e0", True),
        ("resolution>=4", True),
        ("resolution=4", True),
        ("resolution=warn", False),
        ("drift=fail", True),
        ("drift<100", False),
        ("drift>-1", False),
        ("motion<1", False),
    ],
)
def test_a_condition_holds_only_of_what_was_measured(text, holds):
    assert QualityCondition.parse(text).matches(METRICS) is holds


def test_numbers_and_verdicts_have_their_own_places_in_a_catalogue():
    assert QualityCondition.parse("drift<1").key == "quality.drift.value"
    condition = QualityCondition.parse("drift=warn")
    assert (condition.key, condition.value) == ("quality.drift.verdict", Verdict.WARN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drift", "is no condition"),
        ("Drift<1", "is no condition"),
        ("drift<1 or 1", "is no condition"),
        ("drift<nan", "'nan' is no number"),
        ("drift<bad", "'bad' is no number, nor one of pass, warn, fail"),
        ("drift<warn", "a verdict is compared by '='"),
        (7, "7 is no condition"),
    ],
)
def test_what_is_no_condition_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        QualityCondition.parse(text)
