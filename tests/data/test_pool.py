"""Child processes that die, hang, eat memory or raise: each costs one item, in its place, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from medssl.data.formats import Item, Reject
from medssl.data.pool import MOST_HELD, Pool

TASKS = """
import os, time

class Task:
    def __call__(self, item):
        if item.path == "dies":
            os._exit(139)  # what a segmentation fault in a decoder does
        if item.path == "hangs":
            time.sleep(600)
        if item.path == "greedy":
            try:
                return [len(bytearray(64 * 2**30))]
            except MemoryError:
                return ["refused"]
        if item.path == "raises":
            raise ValueError("of the task itself")
        if item.path.endswith("many"):
            open(item.path, "w").close()
            return list(range(500))
        return [item.path, os.getpid()]
"""


@pytest.fixture
def task(tmp_path, monkeypatch):
    (tmp_path / "pool_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    from pool_tasks import Task

    return Task()


def chunks(names, size=3):
    return [[Item(name) for name in names[start : start + size]] for start in range(0, len(names), size)]


def answers(task, names, workers=2, **settings):
    with Pool(task, workers, **settings) as pool:
        return [answer for part in pool.map(chunks(names)) for answer in part]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_answers_come_in_order(task, workers):
    names = [f"{number:03}" for number in range(50)]
    found = answers(task, names, workers)
    assert [item.path for item, _ in found] == names
    assert [one[0] for _, one in found] == names
    assert os.getpid() not in {one[1] for _, one in found}


def test_a_child_that_dies_costs_one_item_even_when_it_is_the_only_one(task):
    names = ["a", "dies", "b", "c", "dies", "d", "e"]
    found = answers(task, names, workers=1)
    assert [item.path for item, _ in found] == names
    lost = [one[0] for _, one in found if isinstance(one[0], Reject)]
    assert [(one.item.path, one.reason, one.detail) for one in lost] == [("dies", "died", "exit code 139")] * 2


def test_a_child_that_hangs_is_stopped_and_named(task):
    begun = time.monotonic()
    found = answers(task, ["a", "hangs", "b", "c"], time_limit=2)
    assert [item.path for item, _ in found] == ["a", "hangs", "b", "c"]
    assert (found[1][1][0].reason, found[1][1][0].detail) == ("hung", "no answer for 2 s")
    assert time.monotonic() - begun < 60


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on memory is Linux's")
def test_memory_of_a_child_is_bounded(task):
    assert answers(task, ["greedy"])[0][1] == ["refused"]


def test_what_the_task_raises_is_raised_here(task):
    with pytest.raises(ValueError, match="of the task itself"):
        answers(task, ["a", "raises", "b"])


def test_few_results_wait_for_a_slow_one(task, tmp_path):
    names = ["hangs", *(str(tmp_path / f"{number}.many") for number in range(40))]
    with Pool(task, 2, time_limit=3) as pool:
        found = pool.map(chunks(names, size=1), ahead=1000)
        next(found)
        assert len(list(tmp_path.glob("*.many"))) <= MOST_HELD // 500 + 4
        assert len(list(found)) == 40


def test_children_end_with_the_pool_and_with_their_parent(task, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys
            from pool_tasks import Task
            from medssl.data.formats import Item
            from medssl.data.pool import Pool
            pool = Pool(Task(), 1)  # no __main__ guard, and never closed
            [((_, (_, child)),)] = pool.map([[Item("a")]])
            print(child, flush=True)
            os._exit(0)
            """
        )
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, timeout=60, check=True)
    child = int(done.stdout)
    end = time.monotonic() + 20
    while time.monotonic() < end and psutil.pid_exists(child):
        time.sleep(0.05)
    assert not psutil.pid_exists(child)
