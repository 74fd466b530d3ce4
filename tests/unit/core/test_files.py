"""Files that appear whole or not at all, on disks that are full and when processes are killed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import (
    PARTIAL_SUFFIX,
    ArrayDigest,
    StorageError,
    array_checksum,
    atomic_directory,
    atomic_file,
    explain_disk_errors,
    file_checksum,
    tree_checksum,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    with atomic_file(target) as partial:
        partial.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert names(target.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_file_and_no_partial_one(tmp_path, error):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def write() -> None:
        with atomic_file(target) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_body_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_file(target):
        pass
    assert target.read_text() == "old"


def test_a_directory_takes_its_name_only_when_it_is_whole_and_replaces_the_old_one(tmp_path):
    target = tmp_path / "volume.zarr"
    for text in ("first", "second"):
        with atomic_directory(target) as partial:
            (partial / "deep").mkdir()
            (partial / "deep" / text).write_text(text)
            assert partial.name == target.name + PARTIAL_SUFFIX
    assert names(target / "deep") == ["second"]
    assert names(tmp_path) == ["volume.zarr"]


def test_an_exception_leaves_the_old_directory_and_no_partial_one(tmp_path):
    target = tmp_path / "volume.zarr"
    with atomic_directory(target) as partial:
        (partial / "chunk").write_text("old")

    def write() -> None:
        with atomic_directory(target) as partial:
            (partial / "chunk").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert (target / "chunk").read_text() == "old"
    assert names(tmp_path) == ["volume.zarr"]


WRITER = """
import sys
from pathlib import Path
from apsber_bluesky.core import atomic_directory, atomic_file
target = Path(sys.argv[2])
with {"file": atomic_file, "directory": atomic_directory}[sys.argv[1]](target) as partial:
    (partial if sys.argv[1] == "file" else partial / "chunk").write_text("half")
    print("in the middle", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_killed_writer_leaves_no_final_name_and_the_next_one_succeeds(tmp_path, kind):
    target = tmp_path / "product"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, kind, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout.readline() == b"in the middle\n"
        writer.kill()
        assert writer.wait() == -9
    assert not target.exists()
    atomic = atomic_file if kind == "file" else atomic_directory
    with atomic(target) as partial:
        (partial if kind == "file" else partial / "whole").write_text("whole")
    assert names(tmp_path) == ["product"]
    if kind == "directory":
        assert names(target) == ["whole"]


def test_the_device_that_is_always_full_is_explained():
    device = Path("/dev/full")
    with (
        pytest.raises(StorageError, match=r"cannot write frames at /dev/full: the disk is full"),
        explain_disk_errors(device, "write frames"),
        device.open("wb", buffering=0) as stream,
    ):
        stream.write(b"x")


FILE_LIMIT = """
import resource, sys
from pathlib import Path
from apsber_bluesky.core import atomic_file, explain_disk_errors
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
target = Path(sys.argv[1])
with explain_disk_errors(target, "write the volume"), atomic_file(target) as partial:
    partial.write_bytes(bytes(5000))
"""


def test_a_file_beyond_the_limit_of_the_system_is_explained_and_leaves_nothing(tmp_path):
    target = tmp_path / "volume"
    done = subprocess.run(
        [sys.executable, "-c", FILE_LIMIT, str(target)], capture_output=True, text=True, check=False
    )
    assert "StorageError: cannot write the volume at" in done.stderr
    assert "larger than the disk or a limit" in done.stderr
    assert names(tmp_path) == []


def test_a_disk_that_is_really_full_is_explained_and_leaves_no_name(full_disk):
    done = full_disk(
        """
        from apsber_bluesky.core import StorageError, atomic_directory, explain_disk_errors
        target = root / "volume.zarr"
        try:
            with explain_disk_errors(target, "write the volume"):
                with atomic_directory(target) as partial:
                    for number in range(100):
                        (partial / str(number)).write_bytes(bytes(100_000))
        except StorageError as error:
            print(error)
        print([path.name for path in root.iterdir()])
        """
    )
    assert "volume.zarr: the disk is full; free space or choose another data root" in done
    assert done.splitlines()[-1] == "[]"


@pytest.mark.parametrize("write", [write_json, lambda path, value: path.mkdir(parents=True)])
def test_a_file_in_the_middle_of_the_path_is_explained(tmp_path, write):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "below.json"
    with (
        pytest.raises(StorageError, match=r"a part of the path is a file|is there already"),
        explain_disk_errors(path, "write"),
    ):
        write(path, {})


def test_a_read_only_disk_is_explained(full_disk):
    done = full_disk(
        """
        import subprocess
        from apsber_bluesky.core import StorageError, explain_disk_errors, write_json
        subprocess.run(["mount", "-o", "remount,ro", root], check=True)
        try:
            with explain_disk_errors(root, "keep the receipt"):
                write_json(root / "receipt.json", {})
        except StorageError as error:
            print(error)
        """
    )
    assert "cannot keep the receipt at" in done
    assert "the file system is read-only; choose another data root" in done


def test_a_missing_place_is_explained_and_errors_of_the_code_pass_unchanged(tmp_path):
    with (
        pytest.raises(StorageError, match="there is no such place"),
        explain_disk_errors(tmp_path, "read"),
    ):
        (tmp_path / "missing").read_text()
    with pytest.raises(ZeroDivisionError), explain_disk_errors(tmp_path, "read"):
        1 / 0  # noqa: B018


def test_json_is_whole_or_refused(tmp_path):
    path = tmp_path / "quality.json"
    write_json(path, {"value": None, "unit": "µm"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"value": None, "unit": "µm"}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"value": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["unit"] == "µm"
    assert names(tmp_path) == ["quality.json"]


def test_a_file_checksum_is_that_of_sha256sum(tmp_path):
    content = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / "big").write_bytes(content)
    assert file_checksum(tmp_path / "big") == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_a_tree_checksum_sees_contents_and_names_but_not_order(tmp_path):
    def tree(name: str, files: dict[str, str]) -> str:
        for path, text in files.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tree_checksum(tmp_path / name)

    one = tree("one", {"a/x": "1", "b": "2"})
    assert tree("two", {"b": "2", "a/x": "1"}) == one
    assert tree("three", {"b": "2", "a/y": "1"}) != one
    assert tree("four", {"b": "2", "a/x": "3"}) != one


@given(
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    cuts=st.lists(st.integers(0, 7)),
    dtype=st.sampled_from(["<f4", "<u2", "|i1"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_digest_of_slabs_is_the_checksum_of_the_whole_however_it_is_cut(
    shape, cuts, dtype, seed
):
    array = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    digest = ArrayDigest(array.dtype, shape)
    for slab in np.split(array, sorted(min(cut, shape[0]) for cut in cuts)):
        digest.update(slab)
    assert digest.checksum() == array_checksum(array)


def test_a_checksum_sees_values_shape_and_dtype_but_not_memory_order():
    array = np.arange(12, dtype="<u2").reshape(3, 4)
    checksum = array_checksum(array)
    assert array_checksum(np.asfortranarray(array)) == checksum
    others = [array.reshape(4, 3), array.view("<i2"), array.astype("<u4"), array + 1, array[::-1]]
    assert len({checksum, *(array_checksum(other) for other in others)}) == 1 + len(others)
