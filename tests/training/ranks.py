"""Several processes that run one script, for tests of what ranks do together: gloo on this machine's CPU, met over a file.

The script is the test's own file: pytest starts it once a rank, with the rank, the number of ranks and a folder as arguments.
"""

from __future__ import annotations

import atexit
import datetime
import os
import subprocess
import sys
from pathlib import Path

TIMEOUT = 120  # s


def run_ranks(script: str, folder: Path, size: int = 2) -> None:
    """Run `script` as `size` processes to their end. Raises AssertionError with what they wrote to stderr where one fails."""
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    processes = [
        subprocess.Popen([sys.executable, script, str(rank), str(size), str(folder)], env=environment, stderr=subprocess.PIPE)
        for rank in range(size)
    ]
    try:
        said = [process.communicate(timeout=TIMEOUT)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert all(process.returncode == 0 for process in processes), "\n".join(said)


def found_by_ranks(script: str, folder: Path, size: int = 2) -> list[dict]:
    """Run `script`, in which each rank saves what it found as <rank>.pt in the folder; what they found, in their order."""
    import torch

    run_ranks(script, folder, size)
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


def joined_rank() -> tuple[int, Path]:
    """In the script: meet the others; the rank and the folder."""
    import torch

    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=TIMEOUT),
    )
    # gloo's threads that still run when Python ends would abort the process, once in a while.
    atexit.register(torch.distributed.destroy_process_group)
    return rank, folder
