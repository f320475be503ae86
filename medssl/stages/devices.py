"""The device, kernels and precision that a study runs with."""

from __future__ import annotations

import os

import torch

from medssl.errors import StudyError
from medssl.study import Study


def choose_device(study: Study, local_rank: int | None = None) -> torch.device:
    """The study's device; `auto` is the first GPU, of several processes the one of this process, or the CPU.

    On a GPU kernels are from now on chosen as `deterministic` says: only those that give the same bits each time, or, of each
    convolution, the one that was the fastest when tried.

    Args:
        local_rank: of this process among those on its machine; None where there is only one.

    Raises:
        StudyError: the device is not there.
    """
    device = _device(study, local_rank)
    if device.type == "cuda":
        _choose_kernels(study.deterministic)
    return device


def _choose_kernels(deterministic: bool) -> None:
    # cuBLAS reads it once, before its first product; without it torch refuses to multiply (docs.nvidia.com/cuda/cublas, "Results
    # Reproducibility").
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def _device(study: Study, local_rank: int | None) -> torch.device:
    if study.device == "auto":
        if local_rank is not None and torch.cuda.is_available():
            return _of_rank(local_rank)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(study.device)
    if device.index is not None and local_rank is not None:
        raise StudyError(f"device: is {study.device}, and each of several processes needs its own; allowed: auto, cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise StudyError(
            f"device: is {study.device}, this machine has {torch.cuda.device_count()} GPUs; allowed: auto, cpu, cuda:N"
        )
    return device


def _of_rank(local_rank: int) -> torch.device:
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise StudyError(
            f"device: process {local_rank + 1} of this machine has no GPU, it has {count}; start {count} processes on it"
        )
    return torch.device("cuda", local_rank)


def choose_precision(study: Study, device: torch.device) -> torch.dtype:
    """On GPUs bfloat16 autocast, or float16 with a scaled loss where they lack it; float32 on the CPU; or what the study says."""
    precision = study.pretrain.precision
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return getattr(torch, precision)
