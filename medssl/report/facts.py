"""What the report says about how a comparison was made, filled in by the stage that made it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

# "/home/x", "~/x", "C:\\x" at the start of a word; a URL's "//" and a name such as "timm/resnet50" are no such thing.
_PATH = re.compile(r"(?<![\w/.])(/[^/\s]+/|~/|[A-Za-z]:\\)|file://")


@dataclass(frozen=True)
class SplitFacts:
    """One row of the table of splits."""

    name: str
    patients: int
    images: int
    positives: int | None  # positive images; None where there are no labels


@dataclass(frozen=True)
class ArmFacts:
    """Where an arm's encoder came from. None where there was no pretraining, or where a number is unknown."""

    name: str
    init: str  # random, imagenet, or the name of a file or run
    method: str | None = None  # the self-supervised method; None = not pretrained by this study
    epochs: int | None = None
    samples_seen: int | None = None
    std_sqrt_d: float | None = None  # last value of the monitor: 1 = spread over all directions, 0 = collapsed
    effective_rank: float | None = None  # last value of the monitor, 1 .. dimensions
    dimensions: int | None = None  # of the vectors that the monitor looked at
    weights: str = ""  # source of the initial weights, with a digest
    verdict: str | None = None  # of the monitor: its state and sentence
    pairs: str | None = None  # which images had a related one, for methods that ask for them
    collapse_figure: str | None = None  # a standalone SVG of everything that was watched


@dataclass(frozen=True)
class Facts:
    """Everything on the page besides the comparison. Texts are printed as they are given, escaped.

    Raises ValueError for a text that holds an absolute path: the page leaves the machine, and folders tell names.
    """

    study: str
    target: str
    positive_class: str  # empty where the task has none
    splits: Sequence[SplitFacts]
    arms: Sequence[ArmFacts]
    splitting: str = "Patients were divided before anything was trained; no patient is in two splits."
    synthetic: bool = False  # the images are made, not of patients
    transductive: bool = False  # pretraining saw the task's validation and test images
    exclusions: Mapping[str, int] = field(default_factory=dict)  # what was left out of what -> how many
    encoder: Mapping[str, str] = field(default_factory=dict)  # backbone, input size, batch norm policy, normalisation
    pretraining: Mapping[str, str] = field(default_factory=dict)  # method and its settings
    finetuning: Mapping[str, str] = field(default_factory=dict)  # what every cell was trained with
    versions: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)  # of the data, the splits, the study file
    unconverged: Sequence[str] = ()  # arms whose pretraining was too short, or still moved at its end
    kind: str = "binary"  # of the task: one of medssl.task.KINDS
    names: Sequence[str] = ()  # of the outputs: classes or targets; empty: the positive class, or the target
    pooling: str = ""  # how the scores of a patient's images were made one, mean or max; empty: images are scored
    test_reads: int = 1  # how often the test labels were scored
    notes: Sequence[str] = ()  # what must be known before the numbers are relied on
    about_arms: Sequence[
        str
    ] = ()  # what else is known of them: what their weights have seen, why a pretraining counts as finished
    about_fitting: Sequence[str] = ()  # what else holds for every cell: how rates were chosen

    def __post_init__(self) -> None:
        drawn = {arm.collapse_figure for arm in self.arms}
        for text in _texts(asdict(self)):
            if text in drawn:
                continue
            if _PATH.search(text):
                raise ValueError(f"a report shows no folders, but a fact holds a path: {text!r}")

    @property
    def pretrained(self) -> frozenset[str]:
        """The arms whose encoder this study pretrained."""
        return frozenset(arm.name for arm in self.arms if arm.method is not None)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts(item)
