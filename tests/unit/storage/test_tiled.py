"""The embedded catalogue serves the products of a run where they lie, found by query."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import httpx
import numpy as np
import pytest
from bluesky_tiled_plugins.writing.tiled_writer import TiledWriter
from event_model import compose_run
from tiled.queries import FullText, Key, Like

from apsber_bluesky.core import FrameBooks, ProcessRecord, ServiceError, StorageError
from apsber_bluesky.storage import (
    EmbeddedTiled,
    VolumeWriter,
    content_of,
    open_volume,
    publish_run,
)

# Starting the server takes 7 s on an idle machine and several times that on a busy one.
pytestmark = pytest.mark.timeout(240)


def _publish(client, stored, **changes):
    options = {
        "processes": stored.processes,
        "books": stored.books,
        "quality": stored.quality,
        "state": "complete",
    }
    return publish_run(client, stored.folder, stored.run, **(options | changes))


def test_server_listens_on_loopback_alone_and_wants_its_key(server):
    # The kernel's own list of listening sockets, address:port in hexadecimal.
    table = Path("/proc/net/tcp").read_text(encoding="ascii")
    rows = [line.split() for line in table.splitlines()][1:]
    mine = [row[1] for row in rows if row[1].endswith(f":{server.port:04X}") and row[3] == "0A"]
    assert [address.split(":")[0] for address in mine] == ["0100007F"]
    assert server.api_key == "secret123"
    address, _, key = server.uri.partition("?api_key=")
    assert key == server.api_key
    assert httpx.get(f"{address}/metadata/").status_code == 401
    assert httpx.get(f"{address}/metadata/", params={"api_key": key}).status_code == 200


def test_raw_container_takes_runs_and_gives_their_documents_back(client):
    (spec,) = client["raw"].specs
    assert (spec.name, spec.version) == ("CatalogOfBlueskyRuns", "3.0")
    run = compose_run(metadata={"scan_id": 3, "plan_name": "count"})
    key = {"motor": {"source": "x", "dtype": "number", "dtype_numpy": "<f8", "shape": []}}
    stream = run.compose_descriptor(name="primary", data_keys=key)
    writer = TiledWriter(client["raw"], batch_size=1)
    writer("start", run.start_doc)
    writer("descriptor", stream.descriptor_doc)
    writer("event", stream.compose_event(data={"motor": 1.5}, timestamps={"motor": 0.0}))
    writer("stop", run.compose_stop())
    found = client["raw"].search(Key("plan_name") == "count")[run.start_doc["uid"]]
    names = [name for name, _ in found.documents()]
    assert (names[0], names[-1]) == ("start", "stop")
    assert found["primary"].read()["motor"].values.tolist() == [1.5]


def test_importing_storage_does_not_load_tiled():
    script = "import sys, apsber_bluesky.storage; sys.exit('tiled' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


def test_volume_is_served_where_it_lies(client, stored):
    node = _publish(client, stored)
    assert [spec.name for spec in node.specs] == ["NXtomoproc"]
    served, values = (
        client["processed"][stored.run.uid]["volume"],
        open_volume(stored.folder.volume),
    )
    assert (served.shape, served.dims) == (values.shape, ("z", "y", "x"))
    for index in (0, 16, 20):
        assert np.array_equal(served[index], values[index])
    assert np.array_equal(served[3:19, 100:, ::7], values[3:19, 100:, ::7])
    (source,) = served.data_sources()
    assert source.management == "external"
    assert source.assets[0].data_uri.endswith(f"{stored.run.uid}/volume.zarr/0")
    assert served.metadata["unit"] == "1/m"


def test_what_models_made_is_served_and_found_by_the_model(client, make_run, data_root):
    run = make_run(uid="segmented", root=data_root)
    folder, shape = run.folder, (5, 20, 30)
    labels = np.random.default_rng(1).integers(0, 2, shape).astype(np.uint8)
    likely = np.stack([labels, 1 - labels]).astype(np.float16)
    for product, values in (("labels", labels), ("probabilities", likely)):
        content = content_of(product, classes=("pore", "root"))
        with VolumeWriter(folder.product(product), shape, content=content) as writer:
            writer.write(0, values)
    model = {"model": "roots", "model_version": "3", "model_sha256": "sha256:ab"}
    run.processes = [ProcessRecord("segment", 1, parameters=model)]
    node = _publish(client, run)
    assert "volume" not in node
    served = node["labels"]
    assert (served.dtype, served.metadata["classes"]) == (np.uint8, ["pore", "root"])
    assert np.array_equal(served[2], labels[2])
    assert node["probabilities"].dims == ("c", "z", "y", "x")
    assert np.array_equal(node["probabilities"][1, 3], likely[1, 3])
    found = client["processed"].search(Key("models.segment.name") == "roots")
    assert list(found) == [run.run.uid]


def test_nexus_record_is_served_with_its_frames(client, stored):
    nexus = _publish(client, stored)["nexus"]
    stack = nexus["entry/instrument/detector/data"]
    assert np.array_equal(stack[2:5], stored.frames["flats"])
    with h5py.File(stored.folder.nexus) as file:
        assert np.array_equal(nexus["exchange/theta"][:], file["exchange/theta"][:])


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Key("sample") == "tooth", True),
        (Key("sample") == "bone", False),
        (Like("sample", "too%"), True),
        (FullText("tooth"), True),
        (Key("quality.verdict") == "fail", True),
        (Key("quality.verdict") == "pass", False),
        (Key("quality.signal_to_noise.value") > 5, True),
        (Key("quality.signal_to_noise.value") > 50, False),
        (Key("quality.resolution.verdict") == "fail", True),
        (Key("frames.complete") == True, True),  # noqa: E712
        (Key("scan.num_projections") >= 7, False),
        (Key("state") == "complete", True),
        (Key("scan_id") == 12, True),
    ],
)
def test_runs_are_found_by_what_is_known_of_them(client, stored, query, found):
    _publish(client, stored)
    mine = client["processed"].search(Key("run_uid") == stored.run.uid)
    assert list(mine) == [stored.run.uid]
    assert (list(mine.search(query)) == [stored.run.uid]) == found


def test_an_incomplete_run_is_found_by_what_became_of_its_frames(client, make_run, data_root):
    stored = make_run(missing=(1, 3, 4), incomplete=(2,), uid="holed", root=data_root)
    stored.books.streams["primary"].recovered = 2
    node = _publish(client, stored, state="incomplete")
    assert node.metadata["frames"] == stored.books.to_dict()
    assert node.metadata["frames"]["streams"]["primary"]["missing"] == "1, 3-4"
    assert FrameBooks.from_dict(node.metadata["frames"]) == stored.books
    mine = client["processed"].search(Key("run_uid") == "holed")
    for query, found in (
        (Key("state") == "incomplete", True),
        (Key("frames.complete") == False, True),  # noqa: E712
        (Key("frames.num_missing") > 2, True),
        (Key("frames.num_missing") > 3, False),
        (Key("frames.num_incomplete") == 1, True),
        (Key("frames.recovered") == 2, True),
        (Key("frames.streams.primary.missing") == "1, 3-4", True),
        (Key("frames.streams.flats.missing") == "", True),
    ):
        assert (list(mine.search(query)) == ["holed"]) is found, query


def test_publishing_again_replaces_what_was_published(client, stored, volume_values):
    _publish(client, stored, state="processing")
    smaller = volume_values[:5]
    with VolumeWriter(stored.folder.volume, smaller.shape) as writer:
        writer.write(0, smaller)
    node = _publish(client, stored, quality=stored.quality[:1])
    assert node.metadata["state"] == "complete"
    assert node.metadata["quality"]["verdict"] == "pass"
    assert "resolution" not in node.metadata["quality"]
    assert np.array_equal(node["volume"][:], smaller)
    assert sorted(node) == ["nexus", "volume"]


def test_a_run_without_products_is_published_as_what_it_is(client, make_run, data_root):
    stored = make_run({"darks": 2}, uid="aborted-run", root=data_root)
    node = _publish(client, stored, quality=[], processes=[], state="aborted")
    assert list(node) == []
    assert node.metadata["state"] == "aborted"
    assert node.metadata["frames"]["streams"]["darks"]["written"] == 2


def test_a_volume_that_the_server_may_not_read_is_refused(client, make_run, volume_values):
    stored = make_run()
    with VolumeWriter(stored.folder.volume, volume_values.shape) as writer:
        writer.write(0, volume_values)
    with pytest.raises(ServiceError, match=r"cannot read .*volume\.zarr .*readable storage"):
        _publish(client, stored)


def test_a_second_server_on_the_same_folder_is_refused(server):
    with (
        pytest.raises(ServiceError, match="already serves the catalogue"),
        EmbeddedTiled(server.directory),
    ):
        pass


def test_a_folder_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match="cannot keep the catalogue"),
        EmbeddedTiled(tmp_path / "file" / "catalogue"),
    ):
        pass


def test_the_catalogue_outlives_its_server(tmp_path):
    script = (
        "import sys, threading; from pathlib import Path\n"
        "from tiled.client import from_uri\n"
        "from apsber_bluesky.storage import EmbeddedTiled\n"
        "for turn in range(2):\n"
        "    try:\n"
        "        with EmbeddedTiled(Path(sys.argv[1])) as server:\n"
        "            processed = from_uri(server.uri)['processed']\n"
        "            if turn == 0:\n"
        "                processed.create_container('old-run', metadata={'sample': 'tooth'})\n"
        "            print(processed['old-run'].metadata['sample'])\n"
        "            raise KeyboardInterrupt\n"
        "    except KeyboardInterrupt:\n"
        "        print('stopped', server.uri if server._server else 'closed')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "catalogue")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stdout.split("\n")[:4] == ["tooth", "stopped closed"] * 2, done.stderr
    assert done.returncode == 0
