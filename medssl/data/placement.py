"""Where training reads its pixels from: the GPU's memory, the machine's, or the disk."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import psutil
import torch

from medssl.data.batches import PixelSource
from medssl.errors import StudyError

_SHARE_OF_GPU, _SHARE_OF_MEMORY = 0.3, 0.5  # of what is free; the rest is for training, and for everybody else on the machine
_CHUNK = 1 << 24


def place(source: PixelSource, device: torch.device, choice: str) -> str:
    """Put the pixels of `source` where the study says, or where they fit; returns what was done and why, for people.

    gpu: all of them in the GPU's memory. ram: the shards are read once, in the background, so that the system has them in its
    page cache, which all processes of the machine share. disk: pages are read when they are needed.

    Raises:
        StudyError: they do not fit where the study says, or there is no GPU.
    """
    need = source.pixel_bytes
    chosen, reason = (choice, "as store.placement says") if choice != "auto" else _fitting(need, device)
    if chosen == "gpu":
        _check_gpu(need, device)
        source.hold(device)
        return f"the store ({_size(need)}) is on the GPU: {reason}"
    if chosen == "ram":
        files = source.files
        _warm(files)
        return f"the store ({_size(sum(_length(path) for path in files))}) is read into memory: {reason}"
    return f"the store ({_size(need)}) is read from the disk as it is needed: {reason}"


def _fitting(need: int, device: torch.device) -> tuple[str, str]:
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if need <= _SHARE_OF_GPU * free:
            return "gpu", f"it takes less than {_SHARE_OF_GPU:.0%} of the {_size(free)} that are free there"
    free = psutil.virtual_memory().available
    if need <= _SHARE_OF_MEMORY * free:
        return "ram", f"it takes less than {_SHARE_OF_MEMORY:.0%} of the {_size(free)} that are free there"
    return "disk", f"memory has {_size(free)} free"


def _check_gpu(need: int, device: torch.device) -> None:
    if device.type != "cuda":
        raise StudyError("store.placement: is gpu, and the study runs on the CPU; allowed here: auto, ram, disk")
    free = torch.cuda.mem_get_info(device)[0]
    if need > 0.9 * free:
        raise StudyError(
            f"store.placement: is gpu, and the store's {_size(need)} do not fit into the {_size(free)} that are free there"
        )


def _warm(files: list[Path]) -> None:
    """Read files once in the background: the first step does not wait, and a step that comes first reads its own pages."""

    def read() -> None:
        for path in files:
            # Only a hint: what cannot be read here is reported by the step that needs it.
            with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
                while file.read(_CHUNK):
                    pass

    threading.Thread(target=read, name="medssl-warm", daemon=True).start()


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 0.1):.1f} MB"
