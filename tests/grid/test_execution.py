"""Jobs in real processes that raise, exit, are killed or asked to stop: each costs what it must, and nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from medssl.errors import GridError
from medssl.grid import ExecutionHow, Job, execute
from medssl.grid.slots import START
from medssl.tracking.locks import locked
from medssl.training.stop import StopFlag, Stopped

HERE = ExecutionHow()


def run(module, context, keys, how=ExecutionHow(2), *, stop=None, guarded=True, cost=1.0, **settings):
    done = {}
    guards = {"is_done": module.is_done, "lock_of": module.lock_of} if guarded else {}
    jobs = [key if isinstance(key, Job) else Job(key, cost) for key in keys]
    summary = execute(jobs, module.do, context, how, on_done=done.__setitem__, stop=stop or StopFlag(), **(guards | settings))
    return summary, done


def children():
    """The grid's child processes; other tests of this process leave multiprocessing's resource tracker behind."""
    own = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "medssl.grid.child" in child.cmdline():
                own.append(child)
    return own


@pytest.mark.parametrize("how", [HERE, ExecutionHow(1), ExecutionHow(2)], ids=["here", "one", "two"])
def test_each_job_is_done_once(jobs, context, count, how):
    keys = [f"job-{number}" for number in range(8)]
    summary, done = run(jobs, context, keys, how)
    assert set(done) == set(keys)
    assert count("done") == dict.fromkeys(keys, 1)
    assert (summary.done, summary.taken, summary.failures) == (8, 0, [])
    assert ({one["pid"] for one in done.values()} == {os.getpid()}) == (how is HERE)
    assert not children()


def test_failures_cost_their_own_job(jobs, context, count):
    told = []
    keys = ["raises", "a", "refuses", "exits", "b", "killed", "exits_once", "unpicklable", "c"]
    summary, done = run(jobs, context, keys, tell=told.append)
    assert set(done) == {"a", "b", "c", "exits_once"}
    assert {failure.key: failure.error for failure in summary.failures} == {
        "raises": "ValueError: of the job",
        "refuses": "data: are wrong; mend them",
        "exits": "its process died (exit code 3)",
        "killed": "its process died (signal 9, often a lack of memory)",
        "unpicklable": "its result, a dict, cannot be sent to the parent process",
    }
    details = {failure.key: failure.detail for failure in summary.failures}
    assert "in do" in details["raises"]
    assert not details["refuses"], "what the user can mend needs no traceback"
    begun = count("begun")
    assert (begun["exits"], begun["killed"], begun["exits_once"], begun["raises"]) == (2, 2, 2, 1)
    assert sorted(told) == [
        "exits: its process died (exit code 3); it is tried once more",
        "exits_once: its process died (exit code 3); it is tried once more",
        "killed: its process died (signal 9, often a lack of memory); it is tried once more",
    ]


def test_failures_cost_their_own_job_in_this_process_too(jobs, context):
    summary, done = run(jobs, context, ["raises", "a", "refuses", "b"], HERE)
    assert set(done) == {"a", "b"}
    assert {failure.key for failure in summary.failures} == {"raises", "refuses"}


def test_a_slow_job_holds_up_no_other(jobs, context):
    order = []
    execute(
        [Job("slow", 9.0), *(Job(f"job-{number}", 1.0) for number in range(4))],
        jobs.do,
        context,
        ExecutionHow(2),
        on_done=lambda key, result: order.append((key, result["pid"])),
        stop=StopFlag(),
    )
    assert len({pid for _, pid in order}) == 2
    slow = dict(order)["slow"]
    assert next(key for key, pid in order if pid == slow) == "slow", "the longest began first"


def test_jobs_of_a_group_go_to_the_same_process(jobs, context):
    keys = [Job(f"slow-{group}{number}", 1.0, group=group) for number in range(3) for group in "ab"]
    _, done = run(jobs, context, keys)
    pids = {group: {done[f"slow-{group}{number}"]["pid"] for number in range(3)} for group in "ab"}
    assert all(len(of_group) == 1 for of_group in pids.values())
    assert pids["a"] != pids["b"]


def test_threads_are_divided(jobs, context, monkeypatch):
    monkeypatch.setattr("medssl.grid.slots.usable_cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    _, done = run(jobs, context, ["a", "b", "c"])
    assert {one["threads"] for one in done.values()} == {"3"}


def test_what_another_command_has_done_is_taken(jobs, context, count):
    (context.path / "a.done").write_text("done\n")
    summary, done = run(jobs, context, ["a", "b"])
    assert (summary.done, summary.taken) == (1, 1)
    assert done["a"] is None
    assert count("done") == {"a": 1, "b": 1}


def test_what_another_command_is_at_is_waited_for_and_taken(jobs, context, count, monkeypatch):
    monkeypatch.setattr("medssl.grid.board.WAIT", 0.1)
    told, held = [], threading.Event()

    def other():
        with locked(jobs.lock_of(context, "a"), timeout=1):
            held.set()
            time.sleep(1.5)
            (context.path / "a.done").write_text("done\n")

    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    summary, _ = run(jobs, context, ["a", "b"], tell=told.append)
    thread.join()
    assert (summary.done, summary.taken) == (1, 1)
    assert "a" not in count("begun")
    assert told == ["another command is at 1 of what is left; waiting for it"]


@pytest.mark.parametrize("key", ["sleeps", "loops"])
def test_a_stop_ends_the_processes_within_seconds_and_keeps_what_is_finished(jobs, context, count, monkeypatch, key):
    monkeypatch.setattr("medssl.grid.processes.GRACE", 1.0)
    stop = StopFlag()
    threading.Timer(2.0, stop.set, [signal.SIGTERM]).start()
    begun = time.monotonic()
    with pytest.raises(Stopped, match="stopped after cell 2 of 5") as stopped:
        run(jobs, context, ["a", "b", f"{key}-1", f"{key}-2", f"{key}-3"], stop=stop)
    assert stopped.value.signum == signal.SIGTERM
    assert time.monotonic() - begun < 8
    assert not children()
    assert count("done") == {"a": 1, "b": 1}


def test_a_stop_in_this_process_reaches_the_job(jobs, context):
    stop = StopFlag()
    threading.Timer(0.5, stop.set, [signal.SIGINT]).start()
    with pytest.raises(Stopped, match="stopped after cell 1 of 2"):
        run(jobs, context, [Job("a", 2.0), Job("loops", 1.0)], HERE, stop=stop)


def test_an_error_in_the_parent_leaves_no_processes(jobs, context):
    def fail(key, result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute([Job("a", 1.0), Job("sleeps", 2.0)], jobs.do, context, ExecutionHow(2), on_done=fail, stop=StopFlag())
    assert not children()


def test_a_process_that_cannot_be_started_is_one_line(jobs, context, monkeypatch):
    monkeypatch.setattr("medssl.grid.processes.environment_with", lambda changes: {"PYTHONHOME": "/nowhere"})
    with pytest.raises(GridError, match=r"could not be started \(exit code 1\)"):
        run(jobs, context, ["a"], ExecutionHow(1))


def test_children_end_with_a_parent_that_is_killed(jobs, context, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from pathlib import Path
            import grid_jobs
            from medssl.grid import ExecutionHow, Job, execute
            from medssl.training.stop import StopFlag
            jobs = [Job("sleeps-1", 1.0), Job("sleeps-2", 1.0)]  # no __main__ guard
            context = grid_jobs.Folder(Path(sys.argv[1]))
            execute(jobs, grid_jobs.do, context, ExecutionHow(2), on_done=print, stop=StopFlag())
            """
        )
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(jobs.__file__).parent), *sys.path])}
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment)
    end = time.monotonic() + 60
    while time.monotonic() < end and len(list(tmp_path.glob("*.begun"))) < 2:
        time.sleep(0.05)
    pids = [int(path.read_text()) for path in tmp_path.glob("*.begun")]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    while time.monotonic() < end and any(map(psutil.pid_exists, pids)):
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, pids))


def test_much_work_goes_to_children_by_itself(jobs, context, monkeypatch):
    monkeypatch.setattr("medssl.grid.slots.usable_cores", lambda: 2)
    _, done = run(jobs, context, ["slow-1", "slow-2"], ExecutionHow(), cost=START)
    assert len({one["pid"] for one in done.values()} - {os.getpid()}) == 2
