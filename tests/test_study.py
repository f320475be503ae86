"""The study file: what is accepted, and the line for each thing that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from medssl.errors import StudyError
from medssl.study import read_study

REPOSITORY = Path(__file__).parents[1]
STUDY = """
version: 1
name: try
data: {archive: {card: phantom_cxr}}
task: {kind: binary, data: archive, target: opacity, positive: present}
"""


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_studies_are_valid(path):
    assert read_study(path).version == 1


def test_defaults(study_file):
    study = read_study(study_file)
    assert list(study.arms) == ["random", "imagenet", "in_domain", "imagenet_in_domain"]
    assert study.arms["imagenet_in_domain"].init == "imagenet"
    assert study.arms["imagenet_in_domain"].method == "simsiam"
    assert study.work_folder == Path("runs/try")
    assert study.store_size == 74  # 8/7 of 64, rounded up
    assert study.sources_of("in_domain") == ["archive"]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "finetune.budgetz=[40]",
            r"finetune\.budgetz: unknown key; did you mean 'budgets'\?; allowed: budgets, folds, full, knn, layer_decay,",
        ),
        ("pretrain.epochs=ten", r"pretrain\.epochs: is 'ten', should be a valid integer"),
        ("pretrain.epochs=0", r"pretrain\.epochs: is 0, should be greater than or equal to 1"),
        ("encoder.stem=smal", r"encoder\.stem: is 'smal'; did you mean 'small'\?; allowed: 'standard' or 'small'"),
        (
            "task.kind=binry",
            r"task: 'kind' is 'binry'; did you mean 'binary'\?; allowed: 'binary', 'multiclass', 'multilabel', 'ordinal'",
        ),
        ("task.kind=multiclass", r"task\.positive: unknown key; allowed: classes, data, kind, level, pooling, split, target"),
        (
            "task.split={kind: fold}",
            r"task\.split: 'kind' is 'fold'; did you mean 'folds'\?; allowed: 'patient', 'official', 'folds'",
        ),
        ("task.split.kind=random", r"task\.split: 'kind' is 'random'; allowed: 'patient', 'official'"),
        ("task.split.test=0.0", r"task\.split: validation \+ test must leave"),
        ("task.split={kind: official, test: 0.2}", r"task\.split\.test: unknown key; allowed: collisions, kind"),
        ("task.data=archiv", r"task\.data names 'archiv'; did you mean 'archive'\?; allowed: archive"),
        (
            "arms={imagenet: {init: imagenet}, mine: {method: byol}}",
            r"arms\.mine\.method is 'byol', but pretrain\.method\.name is 'simsiam'",
        ),
        (
            "arms={imagenet: {init: imagenet}, mine: {sources: [archive]}}",
            r"arms\.mine\.sources is set, but the arm has no method",
        ),
        ("encoder.stem=small", r"arms\.imagenet\.init is imagenet, but encoder\.stem is small"),
        ("evaluate.reference=imagnet", r"evaluate\.reference is 'imagnet', which is no arm"),
        ("store.size=32", r"store\.size is 32, below encoder\.input_size 64"),
        ("finetune.budgets=[1]", r"finetune\.budgets\.0: is 1; allowed: a number of patients \(2 or more\)"),
        ("finetune.budgets=[1.5]", r"finetune\.budgets\.0: is 1\.5; allowed"),
        ("finetune.linear=null", r"finetune: linear, linear_recalibrated, .*, layer_decay are all null"),
        ("finetune.seeds=0", r"finetune\.seeds: is 0; allowed: a whole number from 1 to 100, or one for each budget"),
        ("finetune.seeds={all: 101}", r"finetune\.seeds: is \{'all': 101\}; allowed: a whole number from 1 to 100"),
        ("finetune.seeds={10%: 3}", r"finetune: seeds does not name the budget all; it must name each of all, or be a number"),
        ("finetune.seeds={all: 1, 10%: 3}", r"finetune: seeds names '10%', which is no budget; allowed: all"),
        (
            "finetune.full={budgets: [0.1, 20], seeds: {10%: 3}}",
            r"finetune: full\.seeds does not name the budget 20; it must name each of 10%, 20",
        ),
        ("finetune.parallel=0", r"finetune\.parallel: is 0"),
        ("version=2", r"version: is 2, this medssl reads version 1"),
        ("name=Has Blank", r"name: is 'Has Blank'; allowed: text that matches"),
        ("seed=true", r"seed: is True, should be a valid integer"),
        ("pretrain.optimizer.base_lr=.inf", r"pretrain\.optimizer\.base_lr: is inf"),
        ("data={}", r"data: is a mapping, dictionary should have at least 1 item"),
    ],
)
def test_each_wrong_key_gets_its_line(study_file, override, line):
    with pytest.raises(StudyError, match=line) as caught:
        read_study(study_file, [override])
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(study_file))


def test_overrides_set_nested_keys_and_keep_the_rest(study_file):
    study = read_study(study_file, ["finetune.budgets=[20, 0.5, all]", "pretrain.optimizer.base_lr=1e-2", "task.split.test=0.4"])
    assert study.finetune.budgets == [20, 0.5, "all"]
    assert study.pretrain.optimizer.base_lr == 0.01
    assert study.task.split.test == 0.4
    assert study.task.target == "opacity"


def test_draws_can_be_set_for_each_budget(study_file):
    full = "{budgets: [0.01, 20, all], seeds: {1%: 3, '20': 2, all: 1}}"
    settings = read_study(
        study_file, ["finetune.budgets=[0.1, all]", "finetune.seeds={10%: 4, all: 1}", f"finetune.full={full}"]
    ).finetune
    assert [settings.seeds_of("linear", budget) for budget in settings.budgets_of("linear")] == [4, 1]
    assert [settings.seeds_of("full", budget) for budget in settings.budgets_of("full")] == [3, 2, 1]


def test_draws_of_all_modes_name_the_budgets_of_all(study_file):
    changes = ["finetune.full={budgets: [20]}", "finetune.seeds={'20': 2, all: 1}"]
    settings = read_study(study_file, changes).finetune
    assert (settings.seeds_of("full", 20), settings.seeds_of("linear", "all")) == (2, 1)


@pytest.mark.parametrize(
    ("override", "line"),
    [("seed", "is not of the form a.b=value"), ("seed.a=1", "seed is a value, not a mapping"), ("a=[", "--set a=")],
)
def test_overrides_that_cannot_be_applied(tmp_path, override, line):
    path = tmp_path / "s.yaml"
    path.write_text(STUDY + "seed: 3\n")
    with pytest.raises(StudyError, match=line):
        read_study(path, [override])


def test_a_study_that_is_no_mapping(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("- 1\n")
    with pytest.raises(StudyError, match="must be a mapping of keys to values, not a list"):
        read_study(path)
