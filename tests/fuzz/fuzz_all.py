"""Fuzz every parser in both ways, and say what came of it: ``make fuzz``."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fuzz_lines import covered_lines
from fuzz_targets import TARGETS

_HERE = Path(__file__).parent


def run(kind: str, name: str, count: int, folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Figures of one run in a process of its own, None if it failed; and what it said."""
    command = [sys.executable, str(_HERE / f"fuzz_{kind}.py"), name, "--count", str(count)]
    if kind == "guided":
        command += ["--folder", str(folder)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    (folder / f"{name}-{kind}.log").write_text(done.stdout)
    found = [line for line in done.stdout.splitlines() if line.startswith('{"fuzz"')]
    if done.returncode or not found:
        return None, "\n".join(done.stdout.splitlines()[-40:])
    return json.loads(found[0]), ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--count", type=int, default=100_000, help="cases for each, in each way")
    parser.add_argument("--folder", type=Path, required=True, help="for corpora and findings")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    names = arguments.targets or list(TARGETS)
    jobs = [(kind, name) for name in names for kind in ("property", "guided")]
    failed = []
    print(f"{'target':16} {'fuzz':9} {'cases':>8} {'messages':>9} {'time/s':>7} {'slowest/ms':>10}"
          f" {'case/MiB':>8} {'proc/MiB':>8}")  # fmt: skip
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = pool.map(lambda job: (job, run(*job, arguments.count, folder)), jobs)
        for (kind, name), (figures, said) in runs:
            if figures is None:
                failed.append(f"{name} {kind}")
                print(f"{name:16} {kind:9} FAILED\n{said}", flush=True)
                continue
            print(
                f"{name:16} {kind:9} {figures['cases']:8} {figures['messages']:9}"
                f" {figures['seconds']:7} {figures['slowest_ms']:10} {figures['peak_case_MiB']:8}"
                f" {figures['peak_process_MiB']:8}  {figures['outcomes']}",
                flush=True,
            )
    print("\nlines run by the guided corpora, of the functions that they call:")
    for name in names:
        for module, (ran, lines) in covered_lines(name, folder / name).items():
            share = 100 * len(ran) / max(1, len(lines))
            print(f"{name:16} {module:20} {share:5.1f} %  not: {sorted(lines - ran)}", flush=True)
    if failed:
        print(f"\nfailed: {', '.join(failed)}; cases and logs are in {folder}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
