"""The coverage-guided fuzz of one target, with Atheris (libFuzzer).

What reaches new code is kept and changed further. A crash, a broken promise, 10 s for one case or
2 GiB of memory end it, and the case is left in the folder.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from pathlib import Path

import atheris

_TIMEOUT_S, _MEMORY_MIB, _LARGEST = 10, 2048, 1 << 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    with atheris.instrument_imports(include=["apsber_bluesky.streaming"]):
        from fuzz_targets import TARGETS
    from fuzz_cases import pack_case, unpack_case
    from fuzz_measure import Meter
    from fuzz_report import report
    from fuzz_tape import Tape

    logging.disable(logging.CRITICAL)
    target = TARGETS[arguments.target]
    meter = Meter(target)
    corpus = arguments.folder / arguments.target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(pack_case(seed))

    def one_input(packed: bytes) -> None:
        meter.run(unpack_case(packed), memory=False)
        # libFuzzer ends the process itself.
        if meter.cases == arguments.count:
            report("guided", arguments.target, meter)

    def mutate(packed: bytes, largest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.2:
            return atheris.Mutate(packed, largest)
        case = target.mutate(unpack_case(packed), Tape(rng.randbytes(64)))
        return pack_case(case)[:largest]

    options = {
        "runs": arguments.count,
        "seed": arguments.seed,
        "max_len": _LARGEST,
        "timeout": _TIMEOUT_S,
        "rss_limit_mb": _MEMORY_MIB,
        "artifact_prefix": f"{arguments.folder}/{arguments.target}-",
        "print_final_stats": 1,
        "verbosity": 1,
    }
    flags = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one_input, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
