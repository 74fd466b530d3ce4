"""The notebook among the tutorials does what it shows."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": sys.argv[2]}})
client.execute()
print("RESULT", nbformat.writes(notebook))
"""


@pytest.fixture(scope="module")
def notebook(repository):
    return repository / "docs" / "tutorials" / "scan-and-look.ipynb"


@pytest.fixture(scope="module")
def executed(notebook, tmp_path_factory):
    """Text and kinds of what each cell of code put out."""
    folder = tmp_path_factory.mktemp("notebook")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    own = {"APSBER_DATA_ROOT": str(folder / "data"), "JUPYTER_PLATFORM_DIRS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(notebook), str(folder)],
        env={**kept, **own},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    cells = json.loads(done.stdout.rpartition("RESULT ")[2])["cells"]
    found = []
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        data = [output.get("data", {}) for output in cell["outputs"]]
        text = ["".join(output.get("text", [])) for output in cell["outputs"]]
        text += ["".join(value.get("text/plain", [])) for value in data]
        found.append(("".join(cell["source"]), "\n".join(text), {k for v in data for k in v}))
    return found


def output_of(executed, piece):
    (found,) = [(text, kinds) for source, text, kinds in executed if piece in source]
    return found


def test_what_the_cells_show(executed):
    assert "'complete'" in output_of(executed, "s.RE(")[0]
    followed, _ = output_of(executed, "follower.wait()")
    blocks_before, num_frames, blocks = ast.literal_eval(followed.strip())
    assert blocks_before >= 1
    assert num_frames == sum(block["frames"] for block in blocks) == 90
    assert blocks[0]["first"] == 0
    assert "scan_id=1" in output_of(executed, "find_runs(s.catalog, sample=")[0]
    assert "scan_id=1" in output_of(executed, "verdict=verdict")[0]
    assert "shape=(64, 64, 64)" in output_of(executed, "volume_of(run)")[0]
    assert "image/png" in output_of(executed, "imshow")[1]
    assert {"text/html", "image/png"} <= output_of(executed, "view = open_run")[1]
    assert (
        "application/vnd.jupyter.widget-view+json" in output_of(executed, "browse_slices(view)")[1]
    )
    assert output_of(executed, "run_of(volume)")[0].strip() == "True"
    assert "resolution" in output_of(executed, "quality.pop")[0]
    assert "storage_ring_current" in output_of(executed, "Broker(s.catalog)")[0]


def test_no_outputs_are_kept_in_the_repository(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 8
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"]] == []
