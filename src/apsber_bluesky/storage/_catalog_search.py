"""Find runs by what is known of them, and what was made of a run from the run and back."""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Iterator, Sequence
from typing import Any, Final

from apsber_bluesky.core import InputError, Moment, QualityCondition, Verdict, unix_time
from apsber_bluesky.storage._embedded_tiled import PROCESSED_CONTAINER, RAW_CONTAINER
from apsber_bluesky.storage._publication import VOLUMES

# How many uids go into one request; its address may not be longer than servers take.
_BLOCK: Final = 40


def find_runs(
    catalog: Any,
    *,
    sample: str | None = None,
    proposal: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    scan_id: int | None = None,
    plan: str | None = None,
    detector: str | None = None,
    technique: str | None = None,
    verdict: str | None = None,
    where: str | Sequence[str] = (),
    limit: int = 100,
) -> list[Any]:
    """Find runs.

    All that is given must hold; texts are compared as they are.

    Parameters
    ----------
    catalog : tiled client
        The catalogue: its root, or the container ``raw``, which is ``session.catalog``.
    sample, proposal, plan, technique : str, optional
        As in the start document: ``sample``, ``proposal_id``, ``plan_name``, ``technique``.
    since, until : str, float or datetime, optional
        From when, and before when, the run began: a date such as ``"2026-11"`` or
        ``"2026-11-22 14:30"`` in local time, one with an offset, or Unix time [s].
    scan_id : int, optional
        Number of the scan.
    detector : str, optional
        Name of a detector that took part.
    verdict : {"pass", "warn", "fail"}, optional
        What quality control said of the run.
    where : str or sequence of str
        What must hold of its quality numbers, such as ``"resolution<4"`` or
        ``["ring_score=warn", "drift<=0.5"]``.
    limit : int
        How many runs at most.

    Returns
    -------
    list of bluesky_tiled_plugins.BlueskyRun
        The runs, newest first.

    Raises
    ------
    InputError
        If a value cannot be searched for; it names the argument.
    """
    raw = _container(catalog, RAW_CONTAINER)
    queries = _text_queries(
        sample=sample, proposal_id=proposal, plan_name=plan, technique=technique
    )
    queries += _time_queries(since, until)
    queries += _list_and_number_queries(detector, scan_id)
    if not _is_whole(limit) or limit < 1:
        raise InputError(f"limit is {limit!r}; give a number of runs, 1 or more")
    for query in queries:
        raw = raw.search(query)
    conditions = [where] if isinstance(where, str) else where
    judged = _quality_queries(verdict, [QualityCondition.parse(text) for text in conditions])
    runs = _with_quality(catalog, raw, judged) if judged else _newest_first(raw)
    # An underscore in the name stands for any letter to the server.
    sure = (r for r in runs if detector in (None, *r.metadata["start"].get("detectors", ())))
    return list(itertools.islice(sure, limit))


def _text_queries(**texts: str | None) -> list[Any]:
    from tiled.queries import Key

    arguments = {"proposal_id": "proposal", "plan_name": "plan"}
    for key, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise InputError(f"{arguments.get(key, key)} is {value!r}; give a text")
    return [Key(key) == value for key, value in texts.items() if value is not None]


def _time_queries(since: Moment | None, until: Moment | None) -> list[Any]:
    from tiled.queries import Key

    queries = []
    begin = None if since is None else unix_time("since", since)
    end = None if until is None else unix_time("until", until)
    if begin is not None and end is not None and begin >= end:
        raise InputError(f"since is {since!r}, which is not before until, {until!r}")
    if begin is not None:
        queries.append(Key("time") >= begin)
    if end is not None:
        queries.append(Key("time") < end)
    return queries


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _list_and_number_queries(detector: Any, scan_id: Any) -> list[Any]:
    from tiled.queries import Contains, Key

    queries = []
    if detector is not None:
        if not isinstance(detector, str) or not detector.isidentifier():
            raise InputError(f"detector is {detector!r}; give the name of a device")
        # The server compares the list as text; the quotes keep camera apart from camera2.
        queries.append(Contains("detectors", f'"{detector}"'))
    if scan_id is not None:
        if not _is_whole(scan_id):
            raise InputError(f"scan_id is {scan_id!r}; give the number of a scan")
        queries.append(Key("scan_id") == int(scan_id))
    return queries


def _newest_first(runs: Any) -> Iterator[Any]:
    return iter(runs.sort(("start.time", -1)).values())


def _quality_queries(verdict: str | None, conditions: Sequence[QualityCondition]) -> list[Any]:
    from tiled.queries import Key

    known = [str(value) for value in Verdict]
    if verdict is not None and verdict not in known:
        raise InputError(f"verdict is {verdict!r}; give one of {', '.join(known)}")
    queries = [] if verdict is None else [Key("quality.verdict") == str(verdict)]
    return queries + [condition.compare(Key(condition.key)) for condition in conditions]


def _with_quality(catalog: Any, raw: Any, queries: Sequence[Any]) -> Iterator[Any]:
    """Those of the runs whose products say so; quality stands with what was made of a run."""
    from tiled.queries import In

    judged = _container(catalog, PROCESSED_CONTAINER)
    for query in queries:
        judged = judged.search(query)
    judged = judged.sort(("time", -1))
    return itertools.chain.from_iterable(
        _newest_first(raw.search(In("uid", uids))) for uids in _blocks(judged.keys())
    )


def _blocks(keys: Any) -> Iterator[list[str]]:
    # Block by block with an offset: iterating over sorted keys ends too early in Tiled 0.2.20.
    for start in itertools.count(0, _BLOCK):
        block = list(keys[start : start + _BLOCK])
        if block:
            yield block
        if len(block) < _BLOCK:
            return


def _container(catalog: Any, name: str) -> Any:
    """A container of the catalogue, from its root or from another of its containers."""
    where = _place(catalog)
    if where and where[-1] in (RAW_CONTAINER, PROCESSED_CONTAINER):
        if where[-1] == name:
            return catalog
        where = where[:-1]
    return _open(catalog, [*where, name], f"the catalogue has no container {name!r}")


def _place(node: Any) -> list[str]:
    try:
        # The root of a server has no name of its own.
        return [part for part in node.path_parts if part]
    except AttributeError as error:
        raise InputError(f"{node!r} is no client of a Tiled catalogue") from error


def _open(node: Any, path: list[str], problem: str) -> Any:
    from tiled.client.constructors import from_context
    from tiled.client.utils import ClientError

    try:
        return from_context(node.context, node_path_parts=path)
    except (KeyError, ClientError) as error:
        raise InputError(f"{problem} ({'/'.join(path)})") from error


def volume_of(run: Any, product: str = "volume") -> Any:
    """The volume that was made of a run, or what a model has made of that.

    Parameters
    ----------
    run : bluesky_tiled_plugins.BlueskyRun
        The run, as ``catalog[uid]`` or `find_runs` give it.
    product : {"volume", "denoised", "labels", "uncertainty", "probabilities"}
        Which; the last one has the class before the slice.

    Returns
    -------
    tiled.client.array.ArrayClient
        Its values (slices, rows, columns); its ``metadata`` has unit, voxel size and classes.
        Nothing is fetched before it is sliced: ``volume[64]`` is one slice.

    Raises
    ------
    InputError
        If that is no run, there is no such product, or nothing was made of it yet.
    """
    if product not in VOLUMES:
        raise InputError(f"product is {product!r}; give one of {', '.join(VOLUMES)}")
    path = _place_of_run(run)
    place = [*path[:-2], PROCESSED_CONTAINER, path[-1], product]
    what = "volume" if product == "volume" else f"{product} volume"
    return _open(run, place, f"run {path[-1]} has no {what} in the catalogue, or none yet")


def products_of(run: Any) -> Any:
    """What was made of a run: its node in ``processed``, whose metadata tell how it went.

    Parameters
    ----------
    run : bluesky_tiled_plugins.BlueskyRun
        The run, as ``catalog[uid]`` or `find_runs` give it.

    Returns
    -------
    tiled.client.container.Container
        The node.

    Raises
    ------
    InputError
        If that is no run, or nothing was made of it yet.
    """
    path = _place_of_run(run)
    place = [*path[:-2], PROCESSED_CONTAINER, path[-1]]
    return _open(run, place, f"nothing was made of run {path[-1]} yet")


def _place_of_run(run: Any) -> list[str]:
    path = _place(run)
    if len(path) < 2 or path[-2] != RAW_CONTAINER:
        raise InputError(f"{'/'.join(path)!r} is no run of the container {RAW_CONTAINER!r}")
    return path


def run_of(product: Any) -> Any:
    """The run that something was made of.

    Parameters
    ----------
    product : tiled client
        A volume, or whatever else is in ``processed``.

    Returns
    -------
    bluesky_tiled_plugins.BlueskyRun
        The run.

    Raises
    ------
    InputError
        If that is not in ``processed``, or the catalogue does not have the run.
    """
    path = _place(product)
    above = path[:-1]
    if PROCESSED_CONTAINER not in above:
        raise InputError(f"{'/'.join(path)!r} is not in the container {PROCESSED_CONTAINER!r}")
    index = above.index(PROCESSED_CONTAINER)
    uid = path[index + 1]
    place = [*path[:index], RAW_CONTAINER, uid]
    return _open(product, place, f"the catalogue does not have run {uid}")
