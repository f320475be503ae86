"""Jobs that do what tests need: processes of other programs import this module."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import DataError
from medssl.grid import stop_flag
from medssl.training.stop import Stopped


@dataclass(frozen=True)
class Folder:
    """Where jobs leave their marks."""

    path: Path


def _name(key: str) -> str:
    return key.replace("/", "~")


def do(context: Folder, key: str) -> dict:
    """Leave a line in `<key>.done`, after what the key's first word asks for."""
    with (context.path / f"{_name(key)}.begun").open("a") as file:
        file.write(f"{os.getpid()}\n")
    begun = len((context.path / f"{_name(key)}.begun").read_text().split())
    what = key.split("-")[0]
    if what == "raises":
        raise ValueError("of the job\nand more")
    if what == "refuses":
        raise DataError("data: are wrong; mend them")
    if what == "exits" or (what == "exits_once" and begun == 1):
        os._exit(3)
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "slow":
        time.sleep(0.5)
    if what == "sleeps":
        time.sleep(300)
    if what == "loops":
        while stop_flag().signum is None:
            time.sleep(0.01)
        raise Stopped(stop_flag().signum, 1, 2)
    if what == "unpicklable":
        return {"function": lambda: None}
    with (context.path / f"{_name(key)}.done").open("a") as file:
        file.write("done\n")
    return {"pid": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS"), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}


def is_done(context: Folder, key: str) -> bool:
    return (context.path / f"{_name(key)}.done").exists()


def lock_of(context: Folder, key: str) -> Path:
    return context.path / f"{_name(key)}.lock"
