"""What a run was made with, so that it can be made again: versions, the study's git commit, hardware, flags, digests of its inputs."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import medssl
from medssl.data.archive import Archive
from medssl.files import read_json, write_json
from medssl.training.checkpoint import describe, differences

if TYPE_CHECKING:
    from medssl.stages.workspace import Workspace
    from medssl.tracking import RunLog

FOLDER, NAME = "record", "record.json"
_PACKAGES = {  # shown as: name of the distribution
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "pandas": "pandas",
    "monai": "monai",
    "nibabel": "nibabel",
    "pydicom": "pydicom",
    "gdcm": "python-gdcm",
    "scikit-learn": "scikit-learn",
    "mlflow": "mlflow",
}
_GIT_SECONDS = 5.0
_GIT_PLACES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
)
_GIB = 2**30


class Weights(Protocol):
    """What a run starts from."""

    source: str  # for people
    sha256: str | None  # hex; None where the seed gives them


def log_record(work: Workspace, archive: Archive | None, log: RunLog, weights: Weights | None = None) -> str | None:
    """Write the record of this run beside its log, name it as an artifact and set the params `record.…`.

    A run that goes on elsewhere gets a second record, `record_2.json`; the first stays.

    Args:
        archive: what the run reads; None where the run is to make it.
        weights: what the run starts from; None where it has none.

    Returns:
        What differs from when the run was last started, as one line; None where nothing does or this is its start.
    """
    record = machine_record(work.study_file) | {"inputs": {} if archive is None else input_hashes(archive, weights)}
    before = records(log.folder)
    changed = differences(read_json(before[-1]), record) if before else []
    if changed or not before:
        path = log.folder / (NAME if not before else f"record_{len(before) + 1}.json")
        write_json(path, record)
        before.append(path)
    # Named again where it is unchanged: a run killed after the file was written has not named it.
    log.artifact(before[-1], folder=FOLDER)
    log.params({"record": _params(record)})
    return describe(changed) if changed else None


def records(folder: Path) -> list[Path]:
    """The record files in `folder`, the first one first."""
    numbered = sorted(folder.glob("record_*.json"), key=lambda path: int(path.stem.rpartition("_")[2]))
    return [path for path in (folder / NAME, *numbered) if path.exists()]


def input_hashes(archive: Archive, weights: Weights | None = None) -> dict[str, str | None]:
    """Digests (hex) of the data, of the splits and of the patients kept out of pretraining; source and SHA-256 of the weights.

    `init_sha256` is None for random weights, which the seed gives; both `init_…` are None without `weights`.
    """
    splits = archive.summary["splits"]
    return {
        "data_digest": archive.data_digest,
        "splits_digest": splits["digest"],
        "excluded_digest": splits["excluded_digest"],
        "init_source": None if weights is None else weights.source,
        "init_sha256": None if weights is None else weights.sha256,
    }


def machine_record(study_file: Path) -> dict[str, Any]:
    """What this process runs on, as JSON values without names of machines, users or places.

    Keys: `versions` (None = not installed), `git` of the study file's folder (None = no repository or no git), `hardware`
    (memory in GiB), `determinism` (torch's flags at this moment), `threads` (of torch), `processes` (of this run).
    """
    import torch

    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return {
        "versions": _versions(),
        "git": git_state(study_file),
        "hardware": _hardware(),
        "determinism": _determinism(),
        "threads": torch.get_num_threads(),
        "processes": torch.distributed.get_world_size() if distributed else 1,
    }


def _versions() -> dict[str, str | None]:
    import torch

    versions: dict[str, str | None] = {"medssl": medssl.__version__, "python": platform.python_version()}
    for shown, distribution in _PACKAGES.items():
        try:
            versions[shown] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            versions[shown] = None
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    return versions | {"cuda": torch.version.cuda, "cudnn": None if cudnn is None else str(cudnn)}


def git_state(study_file: Path) -> dict[str, Any] | None:
    """The commit of the repository that holds the study file.

    Returns:
        `commit` and `dirty`: whether a tracked file differs from the commit, or the study file is not in it. None where
        there is no repository, no commit or no git, or git does not answer within some seconds.
    """
    study_file = Path(study_file).absolute()
    try:
        commit = _git(study_file.parent, "rev-parse", "--verify", "HEAD")
        changed = _git(study_file.parent, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty")
        held = _git(study_file.parent, "ls-files", "--", f":(literal){study_file.name}")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changed) or not held}


def _git(folder: Path, *arguments: str) -> str:
    # No variable of a git that runs us may point at another repository, and no monitor of a repository's own is to be started.
    environment = {name: value for name, value in os.environ.items() if name not in _GIT_PLACES}
    done = subprocess.run(
        ["git", "-c", "core.fsmonitor=false", *arguments],
        cwd=folder,
        env=environment | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_GIT_SECONDS,
        check=True,
    )
    return done.stdout.strip()


def _hardware() -> dict[str, Any]:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "cores_available": cores,
        "memory_gib": round(psutil.virtual_memory().total / _GIB),  # whole ones: like machines differ in the rest
        "gpus": _gpus(),
        "gpu_driver": _gpu_driver(),
    }


def _cpu_model() -> str | None:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.lower().startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None


def _gpus() -> list[dict[str, Any]]:
    """The GPUs that this process may use."""
    import torch

    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        gpu = torch.cuda.get_device_properties(index)
        found.append({"name": gpu.name, "memory_gib": round(gpu.total_memory / _GIB)})
    return found


def _gpu_driver() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
    except Exception:  # no package, no driver, or one that fails: a record is no reason to stop a run
        return None
    return version.decode() if isinstance(version, bytes) else version


def _determinism() -> dict[str, Any]:
    import torch

    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_allow_tf32": _flag(lambda: torch.backends.cudnn.allow_tf32),
        "matmul_allow_tf32": _flag(lambda: torch.backends.cuda.matmul.allow_tf32),
        "float32_matmul_precision": _flag(torch.get_float32_matmul_precision),
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


def _flag(read: Any) -> Any:
    try:
        return read()
    except RuntimeError:  # torch refuses to say where its old and its new way to set the flag were mixed
        return "mixed"


def _params(record: dict[str, Any]) -> dict[str, Any]:
    """The part of a record that runs are searched and compared by."""
    versions, git, hardware = record["versions"], record["git"] or {}, record["hardware"]
    return {
        **{name: versions[name] for name in ("medssl", "python", "torch", "cuda")},
        "git_commit": git.get("commit"),
        "git_dirty": git.get("dirty"),
        "cpu": hardware["cpu"],
        "gpus": ", ".join(gpu["name"] for gpu in hardware["gpus"]),
        "processes": record["processes"],
        **record["inputs"],
    }
