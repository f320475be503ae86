"""The device and precision that a study runs with."""

from __future__ import annotations

import torch

from medssl.errors import StudyError
from medssl.study import Study


def choose_device(study: Study) -> torch.device:
    """The study's device; `auto` is the first GPU, or the CPU.

    Raises:
        StudyError: the device is not there.
    """
    if study.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(study.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise StudyError(
            f"device: is {study.device}, this machine has {torch.cuda.device_count()} GPUs; allowed: auto, cpu, cuda:N"
        )
    return device


def choose_precision(study: Study, device: torch.device) -> torch.dtype:
    """bfloat16 autocast on GPUs that have it, float32 elsewhere, or what the study says."""
    precision = study.pretrain.precision
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return getattr(torch, precision)
