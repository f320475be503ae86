"""Jobs on a dask cluster of real processes: workers and children that die, a stop, a cluster without what jobs need."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from medssl.errors import GridError
from medssl.grid import ExecutionHow, Job, execute
from medssl.grid.slots import Limits
from medssl.training.stop import StopFlag, Stopped

distributed = pytest.importorskip("distributed", reason="dask.distributed is an extra: pip install 'medssl[cluster]'")


def cluster_of(**settings):
    return distributed.LocalCluster(
        **{"n_workers": 2, "threads_per_worker": 1, "processes": True, "host": "127.0.0.1"} | settings,
        dashboard_address=":0",
        silence_logs=50,
    )


@pytest.fixture(scope="module", autouse=True)
def importable():
    """Workers take over the import path of the process that starts them."""
    folder = str(Path(__file__).parent / "importable")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def cluster(importable):
    with cluster_of() as cluster:
        yield cluster


@pytest.fixture
def run(jobs, context):
    """run(address, jobs, **settings) -> (summary, {key: result}, lines that were told)."""

    def go(address, given, *, stop=None, done=None, **settings):
        done, told = {} if done is None else done, []
        summary = execute(
            [job if isinstance(job, Job) else Job(job, 1.0) for job in given],
            jobs.do,
            context,
            ExecutionHow(scheduler=address),
            on_done=done.__setitem__,
            stop=stop or StopFlag(),
            is_done=jobs.is_done,
            lock_of=jobs.lock_of,
            tell=told.append,
            **settings,
        )
        return summary, done, told

    return go


def grandchildren() -> list[psutil.Process]:
    """The processes that do jobs, below dask's workers."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            found += [child] if "medssl.grid.child" in child.cmdline() else []
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def ended(processes, within=10.0) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=within)
    return not alive


def pids_of(cluster) -> list[int]:
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        return list(client.run(os.getpid).values())


def test_each_job_is_done_once_by_children_of_the_workers(cluster, run, count):
    keys = [f"job-{number}" for number in range(6)]
    summary, done, told = run(cluster.scheduler_address, keys)
    assert set(done) == set(keys)
    assert count("done") == dict.fromkeys(keys, 1)
    assert (summary.done, summary.taken, summary.failures, told) == (6, 0, [], [])
    assert {one["pid"] for one in done.values()}.isdisjoint({os.getpid(), *pids_of(cluster)})
    assert {one["gpu"] for one in done.values()} == {""}, "a worker that offers no GPU shows none to its children"
    assert ended(grandchildren())


def test_a_job_comes_after_the_one_that_it_needs(cluster, run):
    done: dict = {}
    run(cluster.scheduler_address, [Job("a", 9.0, after="slow-first"), Job("slow-first", 1.0), Job("b", 5.0)], done=done)
    assert list(done).index("slow-first") < list(done).index("a")


def test_failures_and_dead_children_cost_their_own_job(cluster, run, count):
    summary, done, told = run(
        cluster.scheduler_address, ["raises", "refuses", "exits", "exits_once", "killed", "unpicklable", "a", "b"]
    )
    assert set(done) == {"a", "b", "exits_once"}
    assert {failure.key: failure.error for failure in summary.failures} == {
        "raises": "ValueError: of the job",
        "refuses": "data: are wrong; mend them",
        "exits": "its process died (exit code 3)",
        "killed": "its process died (signal 9, often a lack of memory)",
        "unpicklable": "its result, a dict, cannot be sent to the parent process",
    }
    begun = count("begun")
    assert (begun["exits"], begun["killed"], begun["exits_once"], begun["raises"]) == (2, 2, 2, 1)
    assert len(told) == 3
    assert len(pids_of(cluster)) == 2, "no dask worker died"


def test_a_worker_that_is_killed_in_mid_grid_costs_time_and_no_job(run, count):
    with cluster_of() as own:
        victims = pids_of(own)
        keys = [f"slow-{number}" for number in range(10)]
        done: dict = {}

        def kill():
            while len(done) < 2:
                time.sleep(0.05)
            os.kill(victims[0], signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        summary, _, told = run(own.scheduler_address, keys, done=done)
        thread.join()
        assert set(done) == set(keys)
        assert summary.failures == []
        assert count("done") == dict.fromkeys(keys, 1)
        assert [line.partition(": ")[2] for line in told] == ["its dask worker has gone; it is tried once more"]
        assert victims[0] not in pids_of(own)


def test_a_stop_ends_the_children_within_seconds_and_keeps_what_is_finished(cluster, run, count, monkeypatch):
    monkeypatch.setattr("medssl.grid.cluster.GRACE", 2.0)
    stop = StopFlag()
    threading.Timer(4.0, stop.set, [signal.SIGTERM]).start()
    begun = time.monotonic()
    with pytest.raises(Stopped, match="stopped after cell 2 of 5"):
        run(cluster.scheduler_address, [Job("a", 9.0), Job("b", 9.0), "loops", "sleeps", "c"], stop=stop)
    assert time.monotonic() - begun < 12
    assert count("done") == {"a": 1, "b": 1}
    assert ended(grandchildren())
    summary, _, _ = run(cluster.scheduler_address, ["a", "b", "c"])
    assert (summary.done, summary.taken) == (1, 2), "the same command goes on, on the same cluster"


def test_jobs_that_need_a_gpu_go_to_workers_that_offer_one(run):
    with cluster_of(n_workers=1, threads_per_worker=3, resources={"GPU": 1}) as own:
        most = _watch_at_once(own)
        jobs = [Job(f"slow-{number}", 1.0, needs_gpu=True) for number in range(6)]
        _, done, _ = run(own.scheduler_address, jobs, limits=Limits(parallel=2))
        assert len({one["pid"] for one in done.values()}) == 2, "two share the GPU, the third thread has none"
        assert {one["gpu"] for one in done.values()} == {os.environ.get("CUDA_VISIBLE_DEVICES")}
        assert most() == 2
        _, done, _ = run(own.scheduler_address, [f"slow-other{number}" for number in range(6)], limits=Limits(parallel=2))
        assert len({one["pid"] for one in done.values()}) == 3, "jobs without need of a GPU go to every thread"


def _watch_at_once(cluster):
    """How many tasks dask had at most at a time."""
    most, end = [0], threading.Event()

    def watch():
        while not end.wait(0.05):
            most[0] = max(most[0], sum(len(worker.processing) for worker in list(cluster.scheduler.workers.values())))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()

    def stop() -> int:
        end.set()
        thread.join()
        return most[0]

    return stop


def test_a_cluster_without_a_gpu_is_said(cluster, run, monkeypatch):
    monkeypatch.setattr("medssl.grid.cluster.PATIENCE", 1.5)
    with pytest.raises(GridError, match=r"need a GPU, and no worker offered one .*--resources GPU=1"):
        run(cluster.scheduler_address, [Job("a", 1.0, needs_gpu=True)])


def test_a_cluster_without_workers_is_said(run, monkeypatch):
    monkeypatch.setattr("medssl.grid.cluster.PATIENCE", 1.5)
    with cluster_of(n_workers=0) as own, pytest.raises(GridError, match=r"no worker for 2 s; start some \(`dask worker tcp://"):
        run(own.scheduler_address, ["a"])


def test_a_scheduler_that_goes_away_in_mid_grid_is_said(run, count):
    with cluster_of() as own:
        done: dict = {}

        def close():
            while not done:
                time.sleep(0.05)
            own.close()

        thread = threading.Thread(target=close)
        thread.start()
        with pytest.raises(GridError, match=r"the scheduler has gone; .* what is finished is kept"):
            run(own.scheduler_address, [f"slow-{number}" for number in range(40)], done=done)
        thread.join()
    assert len(count("done")) >= len(done) > 0
    assert ended(grandchildren())


def test_nothing_crosses_a_network_in_clear(run):
    with pytest.raises(GridError, match=r"--scheduler tcp://10\.0\.0\.1:8786: .* use tls://"):
        run("tcp://10.0.0.1:8786", ["a"])


def test_a_scheduler_that_is_not_there_is_one_line(run, monkeypatch):
    monkeypatch.setattr("medssl.clusters.CONNECT", "1s")
    with pytest.raises(GridError, match=r"--scheduler tcp://127\.0\.0\.1:9: no answer"):
        run("tcp://127.0.0.1:9", ["a"])
