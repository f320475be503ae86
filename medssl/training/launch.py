"""Which process of how many this one is, as torchrun or SLURM's srun says; imports nothing heavy."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from medssl.errors import LaunchError

_PORTS = (20_000, 20_000)  # srun names no port: jobs that share a machine get different ones of this range


@dataclass(frozen=True)
class Launch:
    """A process among the `size` processes of one run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on its machine: the number of its GPU
    address: str = "localhost"  # of the machine of rank 0
    port: int = 0
    attempt: int = 0  # how often torchrun has started the processes anew
    by: str = "itself"


def launch_of(environment: Mapping[str, str] = os.environ) -> Launch:
    """What the environment says. One process where nothing is said.

    torchrun sets RANK and WORLD_SIZE. srun sets SLURM_STEP_NUM_TASKS in its tasks alone, not in the batch script itself, where a
    run must not wait for tasks that were never started.

    Raises:
        LaunchError: what it says is not complete.
    """
    if "WORLD_SIZE" in environment and "RANK" in environment:
        return _torchrun(environment)
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _srun(environment)
    return Launch()


def _torchrun(environment: Mapping[str, str]) -> Launch:
    size = int(environment["WORLD_SIZE"])
    if size > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= set(environment):
        raise LaunchError(
            "launch: WORLD_SIZE is set, MASTER_ADDR and MASTER_PORT are not; start the processes with torchrun or srun"
        )
    return Launch(
        rank=int(environment["RANK"]),
        size=size,
        local_rank=int(environment.get("LOCAL_RANK", environment["RANK"])),
        address=environment.get("MASTER_ADDR", "localhost"),
        port=int(environment.get("MASTER_PORT", "0")),
        attempt=int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")),
        by="torchrun",
    )


def _srun(environment: Mapping[str, str]) -> Launch:
    job = int(environment.get("SLURM_JOB_ID", "0"))
    return Launch(
        rank=int(environment["SLURM_PROCID"]),
        size=int(environment["SLURM_STEP_NUM_TASKS"]),
        local_rank=int(environment["SLURM_LOCALID"]),
        address=environment.get("MASTER_ADDR") or first_host(environment.get("SLURM_STEP_NODELIST", "")),
        port=int(environment.get("MASTER_PORT") or _PORTS[0] + job % _PORTS[1]),
        by="srun",
    )


def first_host(nodes: str) -> str:
    """`gpu07` of SLURM's node list `gpu[07-09,12],big1`.

    Raises:
        LaunchError: the list is empty.
    """
    found = re.match(r"([^\[,]+)(?:\[(\d+))?", nodes)
    if found is None:
        raise LaunchError("launch: SLURM names no machines; set MASTER_ADDR to the name of the first one")
    return found[1] + (found[2] or "")
