"""How the C library keeps memory that a step gives back."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
_LARGEST_MMAP = 2**25  # what mallopt(3) allows
_KEPT = 2**30


def keep_memory() -> bool:
    """Let glibc keep up to a gigabyte of freed memory instead of handing it back to the system; whether it could.

    A step on a CPU makes and frees the same megabytes again and again; fetching each page anew from the system takes longer than
    what is done with it. Only Linux with glibc has these settings; elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
