"""The study file: one question asked of one or more data sets. Strict models, overrides, errors in one line.

Every key is explained where it stands in `configs/chest_xray.yaml`; `medssl config schema` prints the JSON Schema.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from medssl.errors import StudyError
from medssl.finetuning import FinetuneSettings
from medssl.intervals import interval_of
from medssl.seeds import derive
from medssl.strict import Name, StrictModel, check, near_miss, parse_yaml, read_yaml
from medssl.task import Task

VERSION = 1


class DataSource(StrictModel):
    """One data set: its card (a name in data_cards/ or a path) and where it lies on this machine."""

    card: str
    root: str | None = Field(default=None, description="Folder of the data; null: MEDSSL_DATA/<card name>, or generated")


class StoreSettings(StrictModel):
    """The pixel store that `index` writes."""

    size: int | None = Field(default=None, ge=16, le=4096, description="Longer side, px; null: 8/7 of encoder.input_size")
    workers: int | None = Field(default=None, ge=1, description="Processes that decode; null: one a CPU core")
    placement: Literal["auto", "gpu", "ram", "disk"] = Field(
        default="auto", description="Where training reads from; auto: the GPU where all fits there, else memory, else the disk"
    )
    time_limit: float = Field(default=120, gt=0, description="Seconds for one file; one that takes longer is set aside")


class Normalization(StrictModel):
    """Mean and standard deviation of each colour channel, in [0, 1]."""

    mean: list[float] = Field(min_length=3, max_length=3)
    std: list[Annotated[float, Field(gt=0)]] = Field(min_length=3, max_length=3)


class EncoderSettings(StrictModel):
    """The network, the same for every arm: an arm differs in its initialisation and in nothing else."""

    backbone: str = "timm/tf_efficientnet_lite0"
    stem: Literal["standard", "small"] = "standard"
    input_size: int = Field(default=64, ge=16, le=2048)
    normalization: Literal["backbone"] | Normalization = "backbone"
    group_norm: Literal["keep", "to_batch_norm"] = Field(
        default="keep",
        description="to_batch_norm: a network with group normalisation gets batch normalisation, its convolutions keep their weights",
    )
    zero_init_residual: bool | None = Field(
        default=None,
        description="Random weights: each residual block starts as the identity (1706.02677, section 5.1). null: where the network can",
    )
    batch_norm: Literal["as_loaded", "recalibrated"] = "as_loaded"
    window: Literal["auto", "percentile", "full", "lung", "soft_tissue", "bone", "brain"] = Field(
        default="auto",
        description="auto: the file's own window, else percentiles; lung to brain: CT images by these windows in HU",
    )


def _rising(span: list[float]) -> list[float]:
    if span[0] > span[1]:
        raise ValueError(f"is {span}, the first number must not be above the second")
    return span


class OptimizerSettings(StrictModel):
    """What a study says otherwise than the method's own recipe, that of its paper; see docs/methods.md and `training.recipe`."""

    name: Literal["sgd", "lars", "adamw"] | None = Field(
        default=None, description="Another than the method's takes none of its numbers: give base_lr and weight_decay then"
    )
    base_lr: float | None = Field(default=None, gt=0, description="Learning rate before scaling with the batch")
    scaling: Literal["linear", "sqrt", "none"] | None = Field(
        default=None, description="linear: base_lr x batch_size / 256; sqrt: base_lr x sqrt(batch_size); none: base_lr"
    )
    momentum: float | None = Field(default=None, ge=0, lt=1)
    weight_decay: float | None = Field(default=None, ge=0)
    trust_coefficient: float | None = Field(default=None, gt=0, description="Of LARS")
    warmup_epochs: int | None = Field(default=None, ge=0, description="null: the method's, at most a tenth of the epochs")
    final_lr: float | None = Field(default=None, ge=0, lt=1, description="Where the cosine ends, share of the highest rate")


class CheckpointSettings(StrictModel):
    """When the state of a run is written, besides on SIGTERM and SIGINT."""

    every: str = Field(default="10min", description="90s, 10min, 2h, 500 steps or 1 epoch; a signal to stop writes one besides")
    keep: int = Field(default=2, ge=1, description="The newest that stay")

    @field_validator("every")
    @classmethod
    def _is_an_interval(cls, value: str) -> str:
        interval_of(value)
        return value


class CollapseSettings(StrictModel):
    """What is done about a pretraining that collapses or diverges; see docs/methods.md for the rules."""

    policy: Literal["warn", "stop"] = Field(
        default="warn", description="stop: end the command with an error; the checkpoint stays"
    )
    patience: int = Field(default=3, ge=1, description="Checks in a row that must say the same; a divergence counts at once")


class PretrainSettings(StrictModel):
    """Self-supervised pretraining on the images of `sources` without their labels."""

    sources: list[Name] | None = Field(default=None, min_length=1, description="null: every data set of the study")
    method: dict[str, Any] = Field(default_factory=lambda: {"name": "simsiam"})
    views: dict[str, Any] = Field(default_factory=lambda: {"policy": "chest_xray"})
    second_view: dict[str, Any] = Field(
        default_factory=dict, description="Keys of `views` that the second view has otherwise, such as BYOL's solarize"
    )
    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=256, ge=4)
    accumulate: int = Field(default=1, ge=1, description="Parts that a batch passes the network in; BN sees one part at a time")
    optimizer: OptimizerSettings = OptimizerSettings()
    sync_batch_norm: bool = Field(
        default=True, description="BN over the batch of all processes, where the method does not need its own groups"
    )
    recompute: bool = Field(default=False, description="Gradient checkpointing: less memory, a third more time, the same numbers")
    compile: bool = Field(default=False, description="torch.compile of the encoder; says so and goes on without where it fails")
    clip_norm: float | None = Field(default=None, gt=0, description="Longest gradient, L2 over all parameters; null: as it comes")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto: bfloat16 on a GPU, float16 where it lacks that, float32 on the CPU"
    )
    log_every_steps: int = Field(default=10, ge=1)
    knn_images: int = Field(
        default=512, ge=0, description="Labelled training images for the kNN that is watched each epoch; 0: none"
    )
    collapse: CollapseSettings = CollapseSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    transductive: bool = False
    seeds: int = Field(default=1, ge=1, le=20, description="Pretraining runs of each arm, each from a seed of its own")
    converged_epochs: int = Field(
        default=100, ge=1, description="Epochs below which a report says that pretraining has not converged; see docs/methods.md"
    )

    @model_validator(mode="after")
    def _parts_are_equal(self) -> PretrainSettings:
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate is {self.accumulate}, which does not divide batch_size {self.batch_size}")
        if self.batch_size // self.accumulate < 2:
            raise ValueError(f"accumulate is {self.accumulate}, which leaves parts of one image; allowed: at most batch_size / 2")
        if (self.optimizer.warmup_epochs or 0) > self.epochs:
            raise ValueError("optimizer.warmup_epochs is above epochs; allowed: at most that")
        return self


Span = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2), AfterValidator(_rising)]


class SweepSettings(StrictModel):
    """A search for the rates and the strength of the views, with the same number of trials and samples for every method."""

    methods: list[dict[str, Any]] | None = Field(default=None, min_length=1, description="null: pretrain.method alone")
    arm: Name | None = Field(default=None, description="Whose weights to start from; null: the first arm that is pretrained")
    trials: int = Field(default=12, ge=1, le=1000, description="For each method")
    samples: int = Field(default=20_000, ge=1, description="Samples that each trial sees")
    lr_factor: Span = Field(default=[0.1, 10.0], description="Of the method's base_lr, log-uniform")
    weight_decay_factor: Span = Field(default=[0.1, 10.0], description="Of the method's weight_decay, log-uniform")
    strength: Span = Field(default=[0.5, 1.5], description="Of the views, uniform; see pretrain.views.strength")
    rank_by: Literal["rankme", "labels"] = Field(
        default="rankme", description="labels: a linear probe inside the smallest label budget; the report then says so"
    )
    images: int = Field(default=2048, ge=64, description="Images that RankMe is computed on")


class Arm(StrictModel):
    """One way to initialise the encoder."""

    init: str = Field(
        default="random",
        min_length=1,
        description="random, imagenet, imagenet_statistics, the path of an encoder or of weights, runs:/RUN_ID/path, "
        "models:/NAME/VERSION or models:/NAME@ALIAS of MLflow",
    )
    method: str | None = Field(default=None, description="null: no pretraining; else the method of pretrain.method")
    sources: list[Name] | None = Field(default=None, min_length=1, description="null: pretrain.sources")

    @property
    def start(self) -> str:
        """`init` as it may be shown: of a path its last part; what MLflow names without a slash, which looks like a folder."""
        if self.init.startswith(("runs:/", "models:/")):
            return self.init.replace(":/", " ", 1).replace("/", " ")
        return Path(self.init).name


def stock_arms(method: str = "simsiam") -> dict[str, dict[str, str]]:
    """The four initialisations that every study asks about, as they stand in a study file."""
    return {
        "random": {"init": "random"},
        "imagenet": {"init": "imagenet"},
        "in_domain": {"init": "random", "method": method},
        "imagenet_in_domain": {"init": "imagenet", "method": method},
    }


class EvaluateSettings(StrictModel):
    """The comparison on the test patients."""

    reference: str = "imagenet"
    replicates: int = Field(default=2000, ge=200, le=100_000)
    level: float = Field(default=0.95, gt=0.5, lt=1)


with warnings.catch_warnings():
    # `register` is also a method of every abstract class's metaclass, which pydantic takes for one of the model's own.
    warnings.filterwarnings("ignore", message='Field name "register"')

    class TrackingSettings(StrictModel):
        """Where runs are shown; the local logs are written in any case."""

        enabled: bool = True
        uri: str | None = Field(default=None, description="null: sqlite in the work folder")
        experiment: str | None = Field(default=None, description="null: the study's name")
        images: bool = Field(default=False, description="Allow pixels to go to the tracker")
        register: str | None = Field(
            default=None,
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
            max_length=200,
            description="Name of the registered model that each pretrained encoder becomes a version of; null: none",
        )

        @model_validator(mode="after")
        def _can_register(self) -> TrackingSettings:
            if self.register is not None and not self.enabled:
                raise ValueError("register is set, but enabled is false; allowed: null, or enabled: true")
            return self


class PrivacySettings(StrictModel):
    """The secret that patient and row keys are made with."""

    secret_file: str | None = Field(default=None, description="null: made in the work folder's private/")


class Study(StrictModel):
    """A study file."""

    version: Literal[1]
    name: Name
    seed: int = Field(default=0, ge=0, lt=2**63)
    work_dir: str | None = Field(default=None, description="null: runs/<name>")
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    deterministic: bool = Field(
        default=False, description="Only GPU kernels that give the same bits each time, which are slower; a CPU's always do"
    )
    data: dict[Name, DataSource] = Field(min_length=1)
    store: StoreSettings = StoreSettings()
    encoder: EncoderSettings = EncoderSettings()
    task: Task | None = Field(default=None, description="null: index and pretrain only")
    pretrain: PretrainSettings = PretrainSettings()
    sweep: SweepSettings = SweepSettings()
    arms: dict[Name, Arm] = Field(min_length=1, description="Left out: random, imagenet, in_domain and imagenet_in_domain")
    finetune: FinetuneSettings = FinetuneSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    tracking: TrackingSettings = TrackingSettings()
    privacy: PrivacySettings = PrivacySettings()

    @model_validator(mode="before")
    @classmethod
    def _has_the_stock_arms(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "arms" in value:
            return value
        pretrain = value.get("pretrain")
        method = pretrain.get("method") if isinstance(pretrain, dict) else None
        name = method.get("name") if isinstance(method, dict) else None
        return value | {"arms": stock_arms(name if isinstance(name, str) else "simsiam")}

    @model_validator(mode="after")
    def _fits_together(self) -> Study:
        self._names_exist()
        self._arms_are_possible()
        if self.store_size < self.encoder.input_size:
            raise ValueError(
                f"store.size is {self.store_size}, below encoder.input_size {self.encoder.input_size}; allowed: at least that"
            )
        return self

    def _names_exist(self) -> None:
        places = {"task.data": [self.task.data] if self.task else [], "pretrain.sources": self.pretrain.sources or []}
        places |= {f"arms.{name}.sources": arm.sources or [] for name, arm in self.arms.items()}
        for key, names in places.items():
            for name in names:
                if name not in self.data:
                    raise ValueError(f"{key} names '{name}'{near_miss(name, list(self.data))}; allowed: {', '.join(self.data)}")
        if self.sweep.arm is not None and self.sweep.arm not in self.arms:
            raise ValueError(f"sweep.arm is '{self.sweep.arm}', which is no arm; allowed: {', '.join(self.arms)}")
        if self.task is not None and self.evaluate.reference not in self.arms:  # without a task nothing is evaluated
            raise ValueError(
                f"evaluate.reference is '{self.evaluate.reference}', which is no arm; allowed: {', '.join(self.arms)}"
            )

    def _arms_are_possible(self) -> None:
        method = self.pretrain.method.get("name")
        for name, arm in self.arms.items():
            if arm.method is not None and arm.method != method:
                raise ValueError(
                    f"arms.{name}.method is '{arm.method}', but pretrain.method.name is '{method}'; allowed: null or '{method}'"
                )
            if arm.method is None and arm.sources is not None:
                raise ValueError(f"arms.{name}.sources is set, but the arm has no method to pretrain with; allowed: null")
            if arm.init in ("imagenet", "imagenet_statistics") and self.encoder.stem == "small":
                raise ValueError(
                    f"arms.{name}.init is {arm.init}, but encoder.stem is small, which has no ImageNet weights; allowed: standard"
                )

    @property
    def store_size(self) -> int:
        """Side of the store's square, px: 8/7 of the input size unless the study says otherwise."""
        return self.store.size or -(-self.encoder.input_size * 8 // 7)

    @property
    def work_folder(self) -> Path:
        """Where everything that medssl makes for this study goes."""
        return Path(self.work_dir or f"runs/{self.name}")

    def runs_of(self, arm: str) -> int:
        """How many pretraining runs an arm has: pretrain.seeds, and 1 for one that is not pretrained."""
        return self.pretrain.seeds if self.arms[arm].method else 1

    def seed_of_run(self, run: int) -> int:
        """The seed of an arm's pretraining run (from 0), in [0, 2**63): the study's own for the first."""
        return self.seed if run == 0 else derive(self.seed, "run", run)

    def sources_of(self, arm: str) -> list[str]:
        """The data sets that an arm is pretrained on, sorted."""
        return sorted(self.arms[arm].sources or self.pretrain.sources or self.data)


def read_study(path: Path, overrides: list[str] | None = None) -> Study:
    """Read a study file and apply `--set a.b=value` overrides.

    Raises:
        StudyError: `file: key: what is wrong, what is allowed`.
    """
    value = read_yaml(Path(path), StudyError, "study file")
    for override in overrides or []:
        apply_override(value, override)
    if isinstance(value, dict) and value.get("version") not in (None, VERSION):
        raise StudyError(f"{path}: version: is {value['version']!r}, this medssl reads version {VERSION}")
    return check(Study, value, str(path), StudyError)


def apply_override(value: dict, override: str) -> None:
    """Set `a.b=value` in place; the value is read as YAML.

    Raises:
        StudyError: there is no `=`, or a part of the key is not a mapping.
    """
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise StudyError(f"--set {override}: is not of the form a.b=value")
    for depth, part in enumerate(parts[:-1]):
        if value.get(part) is None:
            value[part] = {}
        if not isinstance(value[part], dict):
            raise StudyError(f"--set {override}: {'.'.join(parts[: depth + 1])} is a value, not a mapping of keys")
        value = value[part]
    value[parts[-1]] = parse_yaml(text, f"--set {override}", StudyError)
