"""Reading on a dask cluster of real processes: as on one machine, also when a worker is killed or a file brings a decoder down."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from PIL import Image as PillowImage

from medssl.data.cluster import CHUNK, read_on_cluster
from medssl.data.formats import Item, ReadOptions, Reject
from medssl.data.reading import ReadTask, read_archive
from medssl.errors import DataError

distributed = pytest.importorskip("distributed", reason="dask.distributed is an extra: pip install 'medssl[cluster]'")
FILES = 5 * CHUNK

CRASHING = """
import os, time
from dataclasses import dataclass
from medssl.data.reading import ReadTask

@dataclass(frozen=True)
class Crashing:
    task: ReadTask

    def __call__(self, item):
        time.sleep(0.02)
        if item.path == "0033.png":
            os._exit(139)
        return self.task(item)
"""


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None, silence_logs=50
    ) as cluster:
        yield cluster


@pytest.fixture
def folder(tmp_path):
    for number in range(FILES):
        pixels = np.random.default_rng(number).integers(0, 255, (9, 7)).astype(np.uint8)
        PillowImage.fromarray(pixels).save(tmp_path / f"{number:04}.png")
    return tmp_path


def items():
    return [Item(f"{number:04}.png") for number in range(FILES)]


def seen(parts):
    return [
        (item.path, [one.reason if isinstance(one, Reject) else one.columns["exact_hash"] for one in found])
        for part in parts
        for item, found in part
    ]


def test_the_results_are_those_of_one_machine(cluster, folder):
    task = ReadTask("raster", folder, (), ReadOptions(), 16)
    assert seen(read_on_cluster(task, items(), cluster.scheduler_address)) == seen(read_archive(task, items(), 1))


def test_a_killed_worker_costs_nothing_and_a_crashing_file_itself(cluster, folder, tmp_path_factory, monkeypatch):
    modules = tmp_path_factory.mktemp("modules")
    (modules / "crashing_task.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(str(modules))
    from crashing_task import Crashing

    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        client.run(lambda path: __import__("sys").path.insert(0, path), str(modules))
        workers = client.run(os.getpid)
        client.register_plugin(_Path(str(modules)))  # also where a worker is started anew
    task = ReadTask("raster", folder, (), ReadOptions(), 16)
    parts = read_on_cluster(Crashing(task), items(), cluster.scheduler_address)
    found = [next(parts)]
    os.kill(next(iter(workers.values())), signal.SIGKILL)
    found += parts
    expected = dict(seen(read_archive(task, items(), 1))) | {"0033.png": ["died"]}
    assert seen(found) == list(expected.items())


class _Path(distributed.WorkerPlugin):
    def __init__(self, path: str) -> None:
        self.path = path

    def setup(self, worker) -> None:
        import sys

        sys.path.insert(0, self.path)


def test_pixels_do_not_cross_a_network_in_clear():
    task = ReadTask("raster", None, (), ReadOptions(), 16)
    with pytest.raises(DataError, match=r"--scheduler tcp://10\.0\.0\.1:8786: .* use tls://"):
        next(read_on_cluster(task, items(), "tcp://10.0.0.1:8786"))


def test_a_scheduler_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr("medssl.clusters.CONNECT", "1s")
    task = ReadTask("raster", None, (), ReadOptions(), 16)
    with pytest.raises(DataError, match="no answer"):
        next(read_on_cluster(task, items(), "tcp://127.0.0.1:9"))
