"""Reading on many machines by dask.distributed: the same task, the same results, in the same order.

Every worker must see the archive under the same path. A file that brings its decoder down or hangs costs that file, as on
one machine: within each dask worker the reading is done by a child process of `medssl.data.pool`. A dask worker that dies
loses the chunks that it was on, and dask gives them to another.
"""

from __future__ import annotations

import hashlib
import pickle
import queue
import threading
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

from medssl.clusters import connect
from medssl.data.formats import Item
from medssl.data.pool import TIME_LIMIT, Answer, Pool, Task
from medssl.errors import DataError

CHUNK = 32  # items a dask task: its scheduler handles some thousand tasks a second


def read_on_cluster(
    task: Task, items: list[Item], address: str, *, chunk: int = CHUNK, time_limit: float = TIME_LIMIT
) -> Iterator[list[Answer]]:
    """What `task` makes of every item, in order, a chunk at a time; see `medssl.data.reading.read_archive`.

    Args:
        address: of the scheduler, see `medssl.clusters.connect`.

    Yields:
        Up to `chunk` items, each with what came of it.

    Raises:
        DataError: dask is not installed, the address is not allowed, nobody answers, or workers keep dying.
    """
    client = connect(address, DataError)
    from distributed import KilledWorker  # after `connect`, which says how to install it

    left = (items[start : start + chunk] for start in range(0, len(items), chunk))
    with client:
        packed = pickle.dumps(task)
        ahead = max(8, 4 * sum(client.nthreads().values()))
        waiting = deque(_submit(client, packed, part, time_limit) for part in islice(left, ahead))
        while waiting:
            try:
                found = waiting.popleft().result()
            except KilledWorker as error:
                raise DataError(
                    "--scheduler: the workers on one part of the archive keep dying (their memory?); mend them and run the same "
                    "command again: what has been read is kept"
                ) from error
            waiting += [_submit(client, packed, part, time_limit) for part in islice(left, 1)]
            yield found


def _submit(client: Any, packed: bytes, items: list[Item], time_limit: float) -> Any:
    # Not pure: dask must not hold results for a call that looks the same.
    return client.submit(_read_in_worker, packed, items, time_limit, pure=False)


_idle: dict[str, queue.SimpleQueue[Pool]] = {}
_lock = threading.Lock()


def _read_in_worker(packed: bytes, items: list[Item], time_limit: float) -> list[Answer]:
    """Runs in a dask worker. Children stay for the next chunk of the same task."""
    with _lock:
        pools = _idle.setdefault(hashlib.sha256(packed).hexdigest(), queue.SimpleQueue())
    try:
        pool = pools.get_nowait()
    except queue.Empty:
        pool = Pool(pickle.loads(packed), 1, time_limit=time_limit)
    try:
        found = [one for part in pool.map([items]) for one in part]
    except BaseException:
        pool.close()
        raise
    pools.put(pool)
    return found
