"""Slabs on a Dask cluster of real processes, one of which is killed midway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from distributed import Client, LocalCluster

from apsber_bluesky.core import ServiceError
from apsber_bluesky.pipeline import DaskCluster

ROWS, COLUMNS, PROJECTIONS = 160, 96, 120


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    random = np.random.default_rng(4)
    theta = np.arange(PROJECTIONS) * 180 / PROJECTIONS
    away = np.arange(COLUMNS) - 47.3 - 6 * np.cos(np.deg2rad(theta))[:, None]
    lines = 0.02 * 2 * np.sqrt(np.maximum(30**2 - away**2, 0))
    counts = 100 + 30000 * np.exp(-lines)[:, None, :] * np.ones((1, ROWS, 1))
    noisy = random.poisson(counts).astype(np.uint16)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["exchange/data"] = noisy
        file["exchange/data_white"] = np.full((2, ROWS, COLUMNS), 30100, np.uint16)
        file["exchange/data_dark"] = np.full((2, ROWS, COLUMNS), 100, np.uint16)
        file["exchange/theta"] = theta
    return tmp_path / "scan.h5"


@pytest.fixture
def cluster():
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            host="127.0.0.1",
            memory_limit="2GiB",
        ) as made,
        Client(made, set_as_default=False) as client,
    ):
        yield client


def reconstruct(scan: Path, name: str, *options: object) -> dict:
    command = [sys.executable, "-m", "apsber_bluesky.cli", "reconstruct", scan, "-o", name]
    command += ["--engine", "finufft", "--centre", 47.3, "--slab-slices", 16, "--json", *options]
    done = subprocess.run(
        list(map(str, command)),
        cwd=scan.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def kill_a_worker_that_works(client: Client, killed: list[int]) -> None:
    pids = client.run(os.getpid)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        busy = [address for address, tasks in client.processing().items() if tasks]
        done = sum(len(names) for names in client.has_what().values())
        if len(busy) == 2 and done:
            os.kill(pids[busy[0]], signal.SIGKILL)
            killed.append(pids[busy[0]])
            return
        time.sleep(0.002)


def test_a_worker_that_is_killed_changes_not_a_bit(scan, cluster):
    here = reconstruct(scan, "here.zarr", "--jobs", 1)
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker_that_works, args=(cluster, killed))
    killer.start()
    there = reconstruct(scan, "there.zarr", "--cluster", cluster.scheduler.address)
    killer.join()
    assert len(killed) == 1
    assert there["plan"]["slabs"] == 10
    assert there["plan"]["workers"] == 2
    assert there["checksum"] == here["checksum"]
    assert not list(scan.parent.glob("*.partial"))


def test_the_cluster_tells_its_memory(cluster):
    found = DaskCluster(cluster.scheduler.address)
    try:
        assert (found.workers, found.task_bytes) == (2, 2 << 30)
    finally:
        found.close()


def test_nobody_there_is_told(monkeypatch):
    monkeypatch.setattr("apsber_bluesky.pipeline._executors._CONNECT_TIMEOUT_S", 1)
    with pytest.raises(ServiceError, match=r"no Dask cluster with workers at tcp://127.0.0.1:1"):
        DaskCluster("tcp://127.0.0.1:1")
