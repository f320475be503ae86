"""run: several stages as one thing, from a pipeline file."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from medssl.errors import StudyError
from medssl.grid import ExecutionHow
from medssl.stages.compare import compare
from medssl.stages.evaluate import evaluate
from medssl.stages.finetune import finetune
from medssl.stages.index import index
from medssl.stages.pretrain import pretrain
from medssl.stages.screen import console
from medssl.stages.workspace import Workspace
from medssl.strict import StrictModel, check, read_yaml


class Pipeline(StrictModel):
    """A pipeline file: stages in their order."""

    version: Literal[1]
    description: str
    stages: list[Literal["index", "pretrain", "finetune", "evaluate", "compare"]] = Field(min_length=1)


def run_pipeline(work: Workspace, path: Path, *, fresh: bool = False, how: ExecutionHow = ExecutionHow()) -> None:
    """Run every stage of a pipeline file. A stage that has nothing to do says so.

    Args:
        how: who reads files and fits cells; shards are for single stages.

    Raises:
        StudyError: the pipeline file is wrong.
        UserError: see the errors of each stage.
    """
    stages: dict[str, Callable[..., object]] = {
        "index": functools.partial(index, look=True, how=how),
        "pretrain": pretrain,
        "finetune": functools.partial(finetune, how=how),
        "evaluate": evaluate,
        "compare": compare,
    }
    pipeline = check(Pipeline, read_yaml(path, StudyError, "pipeline file"), str(path), StudyError)
    for name in pipeline.stages:
        console.rule(f"[bold]{name}")
        stages[name](work, fresh=fresh)
