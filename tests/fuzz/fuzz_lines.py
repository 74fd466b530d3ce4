"""Which lines of the parsers a corpus runs; no tool for it is needed."""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz_cases import unpack_case
from fuzz_targets import TARGETS

Lines = set[int]


def covered_lines(name: str, corpus: Path) -> dict[str, tuple[Lines, Lines]]:
    """For each module of the target: lines run, and all lines of the functions that were called."""
    target = TARGETS[name]
    files = {
        str(importlib.import_module(module).__file__): module for module in target.module_names
    }
    ran: dict[str, Lines] = {file: set() for file in files}
    entered: dict[str, Lines] = {file: set() for file in files}

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        lines = ran.get(frame.f_code.co_filename)
        if lines is None:
            return None
        if event == "call":
            code = frame.f_code
            inside = {line for _, _, line in code.co_lines() if line} - {code.co_firstlineno}
            entered[code.co_filename] |= inside
        lines.add(frame.f_lineno)
        return trace

    logging.disable(logging.CRITICAL)
    target.run([])
    sys.settrace(trace)
    try:
        for path in sorted(corpus.iterdir()):
            target.run(unpack_case(path.read_bytes()))
    finally:
        sys.settrace(None)
        logging.disable(logging.NOTSET)
    return {
        module.rpartition(".")[2]: (ran[file] & entered[file], entered[file])
        for file, module in files.items()
    }
