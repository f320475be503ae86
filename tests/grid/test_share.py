"""Sharing jobs between commands: each job in one part, parts of like load, the same in every command."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.errors import StudyError
from medssl.grid import Job, shard_of, share_of, shares_of

costs = st.lists(st.floats(0.01, 1e4), max_size=60)


def jobs_of(costs):
    return [Job(f"arm{number % 4}/linear/{number}", cost, group=f"arm{number % 4}") for number, cost in enumerate(costs)]


@given(costs, st.integers(1, 20))
def test_every_job_is_in_exactly_one_part(costs, parts):
    jobs = jobs_of(costs)
    shares = [share_of(jobs, (part, parts)) for part in range(1, parts + 1)]
    assert sorted(job.key for share in shares for job in share) == sorted(job.key for job in jobs)
    assert shares == shares_of(jobs, parts)


@given(costs, st.integers(1, 20))
def test_loads_differ_by_at_most_one_job(costs, parts):
    loads = [sum(job.cost for job in share) for share in shares_of(jobs_of(costs), parts)]
    assert max(loads) - min(loads) <= max(costs, default=0) * (1 + 1e-9)


@given(costs, st.integers(1, 8), st.randoms(use_true_random=False))
def test_the_order_of_the_jobs_changes_no_part(costs, parts, random):
    jobs = jobs_of(costs)
    shuffled = random.sample(jobs, len(jobs))
    for mine, theirs in zip(shares_of(jobs, parts), shares_of(shuffled, parts), strict=True):
        assert {job.key for job in mine} == {job.key for job in theirs}


def test_a_division_by_hand():
    jobs = [Job("a", 5.0), Job("b", 3.0), Job("c", 3.0), Job("d", 1.0), Job("e", 1.0)]
    assert [[job.key for job in share] for share in shares_of(jobs, 2)] == [["a", "d", "e"], ["b", "c"]]


def test_no_shard_is_all():
    jobs = jobs_of([1.0, 2.0])
    assert share_of(jobs, None) == jobs


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/5", ""])
def test_a_part_that_cannot_be_is_refused(text):
    with pytest.raises(StudyError, match="k/n with k from 1 to n"):
        shard_of(text)


def test_a_part_is_read():
    assert shard_of("3/16") == (3, 16)
    assert shard_of(None) is None
