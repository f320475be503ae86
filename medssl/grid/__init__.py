"""Many independent jobs on what there is: processes of this machine, a dask cluster, or a part of them in each of several commands."""

from __future__ import annotations

from medssl.grid.execution import execute
from medssl.grid.how import ExecutionHow, shard_of
from medssl.grid.job import Job, Summary, stop_flag
from medssl.grid.share import share_of, shares_of

__all__ = ["ExecutionHow", "Job", "Summary", "execute", "shard_of", "share_of", "shares_of", "stop_flag"]
