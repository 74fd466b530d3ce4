"""Every parser that reads what somebody else sent, with its seeds and its oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import fuzz_parsers as parsers
import fuzz_readers as readers
import fuzz_updates as updates
from fuzz_cases import Case, Message, mutated
from fuzz_tape import Tape
from fuzz_trees import Form

_PACKAGE = "apsber_bluesky.streaming"


def _as_it_is(message: Message, tape: Tape) -> Message:
    return message


@dataclass(frozen=True)
class Target:
    """A parser under fuzz.

    `run` feeds it a case and asserts whatever it promises; it gives what became of each message.
    `wanted` are outcomes that the fuzz must reach, or it tests nothing.
    """

    seeds: Callable[[], tuple[Case, ...]]
    run: Callable[[Case], list[str]]
    form: Form
    modules: tuple[str, ...]
    wanted: tuple[str, ...]
    repair: Callable[[Message, Tape], Message] = _as_it_is

    def mutate(self, case: Case, tape: Tape) -> Case:
        return mutated(case, tape, self.form, self.seeds(), self.repair)

    def make(self, content: bytes) -> Case:
        """The case that a tape stands for: a seed, and what is wrong with it."""
        tape = Tape(content)
        return self.mutate(tape.choice(self.seeds()), tape)

    @property
    def module_names(self) -> list[str]:
        return [f"{_PACKAGE}.{name}" for name in self.modules]


_MSGPACK = "_bounded_msgpack"
TARGETS = {
    "suite": Target(
        readers.suite_seeds,
        readers.run_suite,
        readers.MSGPACK,
        ("_wire", _MSGPACK),
        ("refused", "start", "frame", "end"),
        readers.repair_suite,
    ),
    "eiger1": Target(
        readers.eiger1_seeds,
        readers.run_eiger1,
        readers.JSON1,
        ("_eiger_stream1", "_eiger_header1", "_eiger_fields", "_codecs"),
        ("refused", "start", "frame", "end"),
        readers.repair_eiger1,
    ),
    "eiger2": Target(
        readers.eiger2_seeds,
        readers.run_eiger2,
        readers.CBOR,
        ("_eiger_stream2", "_cbor", "_eiger_fields", "_codecs"),
        ("refused", "start", "frame", "end"),
    ),
    "jungfrau": Target(
        readers.jungfrau_seeds,
        readers.run_jungfrau,
        readers.JSONJ,
        ("_jungfrau", "_jungfrau_header", "_jungfrau_modules"),
        ("refused", "taken", "start", "frame", "end"),
    ),
    "ntndarray": Target(
        updates.seeds,
        updates.run,
        updates.MSGPACK,
        ("_ntndarray", "_ntndarray_pixels", "_codecs"),
        ("refused", "not delivered", "start", "frame", "end"),
    ),
    "fan-out-request": Target(
        parsers.request_seeds,
        parsers.run_request,
        parsers.MSGPACK,
        ("_fan_out_wire", _MSGPACK),
        ("refused", "Hello", "Acknowledge", "Ping", "Bye"),
    ),
    "fan-out-answer": Target(
        parsers.answer_seeds,
        parsers.run_answer,
        parsers.MSGPACK,
        ("_fan_out_wire", _MSGPACK),
        ("refused", "Start", "FrameHeader", "End", "Pong", "Problem"),
    ),
    "preview": Target(
        parsers.preview_seeds,
        parsers.run_preview,
        parsers.PREVIEW,
        ("_preview", _MSGPACK),
        ("refused", "preview"),
    ),
    "control": Target(
        parsers.control_seeds,
        parsers.run_control,
        parsers.MSGPACK,
        ("_messages", _MSGPACK),
        ("refused", "message"),
    ),
    "cbor": Target(
        parsers.cbor_seeds, parsers.run_cbor, readers.CBOR, ("_cbor",), ("refused", "item")
    ),
    "codec": Target(
        parsers.codec_seeds, parsers.run_codec, parsers.BINARY, ("_codecs",), ("refused", "pixels")
    ),
    "superblock": Target(
        parsers.superblock_seeds,
        parsers.run_superblock,
        parsers.BINARY,
        ("_source", "_superblock"),
        ("refused", "frames", "mark True", "mark False"),
        parsers.repair_superblock,
    ),
}
