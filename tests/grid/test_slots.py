"""How many processes, and what each may use."""

from __future__ import annotations

import pytest

from medssl.grid import ExecutionHow, Job
from medssl.grid.slots import Gpu, Limits, slots_of


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr("medssl.grid.slots.usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def jobs(count=20, cost=1000.0, needs_gpu=False):
    return [Job(str(number), cost, needs_gpu) for number in range(count)]


def threads(slots):
    return [slot["OMP_NUM_THREADS"] for slot in slots]


@pytest.mark.parametrize(("workers", "each"), [(1, "8"), (2, "4"), (3, "2"), (8, "1"), (16, "1")])
def test_cores_are_divided_among_processes(workers, each):
    assert threads(slots_of(jobs(), ExecutionHow(workers), Limits())) == [each] * workers


def test_never_more_processes_than_jobs():
    assert len(slots_of(jobs(3), ExecutionHow(8), Limits())) == 3


def test_the_users_own_limit_on_threads_is_kept(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads(slots_of(jobs(), ExecutionHow(2), Limits())) == ["2", "2"]


def test_little_work_is_done_without_children():
    assert slots_of(jobs(20, 0.1), ExecutionHow(), Limits()) == []
    assert slots_of(jobs(1, 1e5), ExecutionHow(), Limits()) == []


def test_memory_bounds_the_processes(monkeypatch):
    class Memory:
        available = 5 * 2**30

    monkeypatch.setattr("medssl.grid.slots.psutil.virtual_memory", Memory)
    assert len(slots_of(jobs(), ExecutionHow(), Limits())) == 3


def test_several_fits_share_a_gpu_as_its_memory_allows():
    gpus = (Gpu(0, 10 * 2**30), Gpu(1, 20 * 2**30))
    slots = slots_of(jobs(needs_gpu=True), ExecutionHow(), Limits(gpus, gpu_memory=4 * 2**30))
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "1", "0", "1", "1", "1"]


def test_the_number_of_fits_a_gpu_can_be_given(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,GPU-bb")
    slots = slots_of(jobs(needs_gpu=True), ExecutionHow(), Limits((Gpu(0, 0), Gpu(1, 0)), parallel=2))
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["GPU-aa", "GPU-bb"] * 2


def test_a_study_that_names_its_gpu_keeps_it():
    slots = slots_of(jobs(needs_gpu=True), ExecutionHow(), Limits((Gpu(1, 2**40),), pinned=True, parallel=3))
    assert len(slots) == 3
    assert all("CUDA_VISIBLE_DEVICES" not in slot for slot in slots)


def test_jobs_without_need_of_a_gpu_go_by_cores():
    assert len(slots_of(jobs(), ExecutionHow(), Limits((Gpu(0, 2**40),), parallel=1))) > 1


def test_little_work_for_a_gpu_is_done_without_children():
    assert slots_of(jobs(20, 10.0, needs_gpu=True), ExecutionHow(), Limits((Gpu(0, 2**40),))) == []
