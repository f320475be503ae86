"""How the machine is used while a run goes on, under the names that MLflow's System Metrics page shows."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from medssl.tracking import lines
from medssl.tracking.log import SYSTEM, TIME, now

Probe = Callable[[], dict[str, float]]


def _cpu() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": memory.percent,
    }


def _disk(folder: Path) -> Probe:
    def probe() -> dict[str, float]:
        usage = psutil.disk_usage(str(folder))
        return {
            "disk_usage_percentage": usage.percent,
            "disk_usage_megabytes": usage.used / 1e6,
            "disk_available_megabytes": usage.free / 1e6,
        }

    return probe


def _network() -> Probe:
    first = psutil.net_io_counters()

    def probe() -> dict[str, float]:
        current = psutil.net_io_counters()
        return {
            "network_receive_megabytes": (current.bytes_recv - first.bytes_recv) / 1e6,
            "network_transmit_megabytes": (current.bytes_sent - first.bytes_sent) / 1e6,
        }

    return probe


def _gpus() -> list[Probe]:
    """A probe for each quantity of each NVIDIA GPU; none where there is no driver."""
    import pynvml

    pynvml.nvmlInit()
    probes: list[Probe] = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        gpu, name = pynvml.nvmlDeviceGetHandleByIndex(index), f"gpu_{index}"

        def memory(gpu=gpu, name=name) -> dict[str, float]:
            info = pynvml.nvmlDeviceGetMemoryInfo(gpu)
            return {
                f"{name}_memory_usage_percentage": info.used / info.total * 100,
                f"{name}_memory_usage_megabytes": info.used / 1e6,
            }

        def busy(gpu=gpu, name=name) -> dict[str, float]:
            return {f"{name}_utilization_percentage": pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu}

        def power(gpu=gpu, name=name) -> dict[str, float]:
            watts = pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000
            limit = pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000
            return {f"{name}_power_usage_watts": watts, f"{name}_power_usage_percentage": watts / limit * 100}

        probes += [memory, busy, power]
    return probes


class SystemSampler:
    """A thread that appends a line to system.jsonl every `interval` seconds. It never raises: a probe that fails is left out."""

    def __init__(self, folder: Path, *, interval: float = 10.0) -> None:
        self._folder, self._interval = Path(folder), interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="medssl-system", daemon=True)

    def start(self) -> None:
        """Begin sampling; the first sample comes after at most a second, since CPU use is measured between two calls."""
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end; returns when the file is closed. A driver that hangs is left behind after 5 s."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        with contextlib.suppress(Exception):
            file = lines.LineFile(self._folder / SYSTEM)
            with contextlib.closing(file):
                step = sum(1 for _ in lines.read(file.path))
                probes = self._probes()
                wait = min(1.0, self._interval)
                while True:
                    last = self._stop.wait(wait)
                    file.append({"step": step, **self._sample(probes), TIME: now()})
                    if last:
                        return
                    step, wait = step + 1, self._interval

    def _probes(self) -> list[Probe]:
        probes: list[Probe] = [_cpu, _disk(self._folder)]
        psutil.cpu_percent()
        with contextlib.suppress(Exception):
            probes.append(_network())
        with contextlib.suppress(Exception):
            probes += _gpus()
        return probes

    @staticmethod
    def _sample(probes: list[Probe]) -> dict[str, float]:
        values: dict[str, float] = {}
        for probe in probes:
            with contextlib.suppress(Exception):
                values |= probe()
        return {f"system/{key}": round(float(value), 1) for key, value in values.items()}
