"""Which job comes next for whom."""

from __future__ import annotations

from medssl.grid import Job
from medssl.grid.board import Board
from medssl.grid.job import Outcome


def board_of(*jobs, done=None, told=None):
    return Board(
        [job if isinstance(job, Job) else Job(job[0], job[1], group=job[2]) for job in jobs],
        (done if done is not None else {}).__setitem__,
        (told if told is not None else []).append,
    )


def finish(board, worker):
    job = board.take(worker)
    board.note(worker, Outcome("done"))
    return job.key


def test_a_worker_stays_with_its_group_and_takes_the_longest_first():
    board = board_of(("a1", 1, "a"), ("b1", 2, "b"), ("a2", 3, "a"), ("b2", 9, "b"))
    assert [finish(board, 0) for _ in range(4)] == ["b2", "b1", "a2", "a1"]
    assert board.open == 0


def test_each_worker_opens_a_group_of_its_own_while_there_is_one():
    board = board_of(("a1", 9, "a"), ("a2", 9, "a"), ("a3", 9, "a"), ("b1", 1, "b"), ("c1", 2, "c"))
    assert [board.take(worker).key for worker in range(3)] == ["a1", "c1", "b1"]
    board.note(1, Outcome("done"))
    assert board.take(1).key == "a2", "its own group is used up: it helps another"


def test_help_goes_where_the_most_is_left_for_each():
    board = board_of(*((f"a{n}", 5, "a") for n in range(3)), *((f"b{n}", 3, "b") for n in range(3)), ("c", 1, "c"))
    assert [board.take(worker).key for worker in range(3)] == ["a0", "b0", "c"]
    board.note(2, Outcome("done"))
    assert board.take(2).key == "a1", "10 left of one worker against 6"
    board.note(2, Outcome("done"))
    assert board.take(2).key == "a2", "it stays"


def test_a_process_that_dies_twice_over_a_job_makes_it_a_failure_and_the_job_comes_last():
    told = []
    board = board_of(("a", 9, ""), ("b", 1, ""), told=told)
    assert board.take(0).key == "a"
    board.note(0, Outcome("died", error="its process died (signal 9)"))
    assert told == ["a: its process died (signal 9); it is tried once more"]
    assert finish(board, 0) == "b"
    assert board.take(0).key == "a"
    board.note(0, Outcome("died", error="its process died (signal 9)"))
    assert board.open == 0
    assert [(failure.key, failure.error) for failure in board.summary.failures] == [("a", "its process died (signal 9)")]


def test_a_job_that_another_command_is_at_is_put_off(monkeypatch):
    monkeypatch.setattr("medssl.grid.board.WAIT", 0.0)
    told, done = [], {}
    board = board_of(("a", 9, ""), ("b", 1, ""), told=told, done=done)
    board.take(0)
    board.note(0, Outcome("busy"))
    assert not told, "there is other work"
    assert finish(board, 0) == "b"
    assert board.take(0).key == "a"
    board.note(0, Outcome("busy"))
    assert told == ["another command is at 1 of what is left; waiting for it"]
    board.take(0)
    board.note(0, Outcome("taken"))
    assert (board.summary.done, board.summary.taken, board.open) == (1, 1, 0)
    assert done == {"b": None, "a": None}


def test_nothing_is_handed_out_before_the_wait_is_over():
    board = board_of(("a", 9, ""))
    board.take(0)
    board.note(0, Outcome("busy"))
    assert board.take(0) is None
    assert board.open == 1


def test_a_job_waits_for_the_one_that_it_comes_after():
    board = board_of(
        Job("cell", 9, after="features"), Job("features", 1), Job("network", 5), Job("other", 3, after="done before")
    )
    assert board.take(0).key == "network"
    assert board.take(1).key == "other", "what is not among the jobs is waited for by none"
    board.note(1, Outcome("done"))
    assert board.take(1).key == "features"
    board.note(0, Outcome("done"))
    assert board.take(0) is None
    board.note(1, Outcome("done"))
    assert board.take(0).key == "cell"


def test_what_comes_after_a_failure_fails_with_it():
    board = board_of(Job("features", 1), Job("cell", 9, after="features"), Job("more", 1, after="cell"), Job("other", 1))
    assert board.take(0).key == "features"
    board.note(0, Outcome("failed", error="ValueError: of it", detail="Traceback"))
    assert [(failure.key, failure.error) for failure in board.summary.failures] == [
        ("features", "ValueError: of it"),
        ("cell", "features has failed, which it needs"),
        ("more", "cell has failed, which it needs"),
    ]
    assert finish(board, 0) == "other"
    assert board.open == 0


def test_what_waits_for_a_job_of_another_command_is_said(monkeypatch):
    monkeypatch.setattr("medssl.grid.board.WAIT", 0.0)
    told = []
    board = board_of(Job("features", 1), Job("cell", 9, after="features"), told=told)
    board.take(0)
    board.note(0, Outcome("busy"))
    assert told == ["another command is at 1 of what is left; waiting for it"]
    assert board.take(0).key == "features"
    board.note(0, Outcome("taken"))
    assert board.take(0).key == "cell"


def test_a_worker_without_a_gpu_takes_no_job_that_needs_one():
    board = board_of(Job("network", 9, needs_gpu=True), Job("probe", 1))
    assert board.wants_gpu
    assert board.take(0, gpu=False).key == "probe"
    assert board.take(1, gpu=False) is None
    assert board.take(2).key == "network"
    assert not board.wants_gpu, "somebody is at it"
    board.note(2, Outcome("died", error="its process died"))
    assert board.wants_gpu
    assert board.take(1, gpu=False) is None
