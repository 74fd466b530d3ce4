"""Which runs to list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from apsber_bluesky.core import InputError, QualityCondition, Verdict, unix_time


@dataclass(frozen=True, slots=True)
class RunFilter:
    """What must hold of a run, as `describe_run` describes it.

    Attributes
    ----------
    equal : dict
        Values by key.
    since_s, until_s : float or None
        From when, and before when, the run began, as Unix time [s].
    detector, verdict : str or None
        A detector that took part; what quality control said.
    where : tuple of QualityCondition
        What must hold of quality numbers.
    """

    equal: Mapping[str, Any]
    since_s: float | None = None
    until_s: float | None = None
    detector: str | None = None
    verdict: str | None = None
    where: tuple[QualityCondition, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        since: str | None,
        until: str | None,
        scan: int | None,
        plan: str | None,
        detector: str | None,
        verdict: str | None,
        where: Sequence[str] = (),
        **texts: str | None,
    ) -> Self:
        """Take the options of the command line.

        Raises
        ------
        InputError
            If one cannot be; it names the option.
        """
        known = [str(value) for value in Verdict]
        if verdict is not None and verdict not in known:
            raise InputError(f"--verdict is {verdict!r}; give one of {', '.join(known)}")
        values = {**texts, "plan_name": plan, "scan_id": scan}
        return cls(
            {key: value for key, value in values.items() if value is not None},
            None if since is None else unix_time("--since", since),
            None if until is None else unix_time("--until", until),
            detector,
            verdict,
            tuple(QualityCondition.parse(text) for text in where),
        )

    @property
    def is_given(self) -> bool:
        """Whether anything is asked for."""
        others = (self.since_s, self.until_s, self.detector, self.verdict)
        return bool(self.equal or self.where) or any(value is not None for value in others)

    def matches(self, run: Mapping[str, Any]) -> bool:
        """Whether a run is one of them; what is not known of a run does not match."""
        began = run["start_time_s"]
        return (
            all(run[key] == value for key, value in self.equal.items())
            and (self.since_s is None or (began is not None and began >= self.since_s))
            and (self.until_s is None or (began is not None and began < self.until_s))
            and (self.detector is None or self.detector in run["detectors"])
            and (self.verdict is None or run["quality"].get("verdict") == self.verdict)
            and all(each.matches(run["quality"].get("metrics", ())) for each in self.where)
        )
