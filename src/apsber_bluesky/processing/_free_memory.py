"""How much memory this process may still take."""

from __future__ import annotations

from pathlib import Path

import psutil

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
# Version 1 writes a huge number where there is no limit.
_NO_LIMIT = 1 << 60


def free_memory(root: Path = _ROOT, own: Path = _OWN) -> int:
    """Memory that can be taken without swapping, or being killed for it.

    What is free on the machine, or less where a control group (of a container, batch job or user
    session) or one above it allows less.

    Parameters
    ----------
    root, own : Path
        Where control groups are mounted, and where a process finds its own.

    Returns
    -------
    int
        Free memory [byte].
    """
    free = int(psutil.virtual_memory().available)
    for group, limit, usage, cache in _groups(root, own):
        left = _left(group, limit, usage, cache)
        if left is not None:
            free = min(free, left)
    return max(free, 0)


def _groups(root: Path, own: Path) -> list[tuple[Path, str, str, str]]:
    """Memory groups of this process and those above, with the names of their files."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            names = ("memory.max", "memory.current", "inactive_file")
            top = root if (root / "cgroup.controllers").exists() else root / "unified"
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            top = root / "memory"
        else:
            continue
        inner = top / path.lstrip("/")
        # In a container the path may be the host's; then only the top is there.
        found += [
            (folder, *names)
            for folder in (inner, *inner.parents)
            if top in (folder, *folder.parents)
        ]
    return found


def _left(group: Path, limit: str, usage: str, cache: str) -> int | None:
    try:
        allowed = (group / limit).read_text(encoding="utf-8").strip()
        used = int((group / usage).read_text(encoding="utf-8"))
        stat = (group / "memory.stat").read_text(encoding="utf-8")
    except OSError:
        return None
    if allowed == "max" or int(allowed) >= _NO_LIMIT:
        return None
    # Files that were read are given back when memory is wanted.
    values = dict(line.split() for line in stat.splitlines())
    return int(allowed) - used + int(values.get(cache, 0))
