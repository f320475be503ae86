"""How often intervals hold the truth, with bounds; `studies.py` beside it prints the shares for docs/statistics.md."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medssl.evaluation.coverage import BY_DRAWS, BY_PATIENTS


def _load():
    spec = importlib.util.spec_from_file_location("studies", Path(__file__).with_name("studies.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["studies"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


studies = _load()
ALONE, REPEATED = studies.PATIENTS_ALONE, studies.Setting()


def test_the_truth_in_closed_form_is_what_large_studies_show():
    setting = replace(REPEATED, patients=3000, draws=4, runs=4, gain=0.29)
    rng = np.random.default_rng(0)
    found = np.array([studies.difference(*studies.study(setting, rng), 2, 0)[2][..., 0].mean(axis=(1, 2)) for _ in range(12)])
    assert found.mean(axis=0) == pytest.approx([setting.auroc(1.2), setting.auroc(1.49)], abs=0.012)
    assert setting.difference == pytest.approx(0.05, abs=0.002)


@pytest.mark.long
@pytest.mark.parametrize("patients", [300, 1000])
def test_intervals_hold_the_truth_in_93_to_97_of_100_studies(patients):
    found = studies.run(replace(ALONE, patients=patients, gain=0.15), 2000 if patients == 300 else 500, 300)
    slack = 0 if patients == 300 else 0.01
    assert 0.93 - slack <= found["difference_held"] <= 0.97 + slack
    assert 0.93 - slack <= found["one_arm_held"] <= 0.97 + slack


@pytest.mark.long
@pytest.mark.parametrize("patients", [40, 100])
def test_what_small_test_sets_hold_is_what_is_published(patients):
    found = studies.run(replace(ALONE, patients=patients, gain=0.15), 1000, 300)
    assert 100 * min(found["difference_held"], found["one_arm_held"]) == pytest.approx(BY_PATIENTS[patients], abs=2.5)


@pytest.mark.long
def test_resampling_images_fails():
    found = studies.run(replace(ALONE, gain=0.15), 500, 300, clusters="images")
    assert found["difference_held"] < 0.85
    assert found["one_arm_held"] < 0.75


@pytest.mark.long
@pytest.mark.parametrize("draws", BY_DRAWS)
def test_few_draws_hold_what_is_published(draws):
    worst = 100.0
    for name, setting, clusters in studies.PLANS["draws"]:
        if name.startswith(f"{draws} "):
            worst = min(worst, 100 * studies.run(setting, 200, 150, clusters)["difference_held"])
    assert worst == pytest.approx(BY_DRAWS[draws], abs=5)  # standard error of 200 studies: 1.5 to 2


@pytest.mark.long
def test_equal_arms_are_called_different_in_3_to_7_of_100_studies():
    found = studies.run(REPEATED, 1000, 200)
    assert 0.03 <= found["called"] <= 0.07


@pytest.mark.long
@pytest.mark.parametrize("number", [0, 2])
def test_a_difference_of_5_points_is_found_in_80_of_100_studies(number):
    name, setting, clusters = studies.PLANS["power"][number]
    assert setting.difference == pytest.approx(0.05, abs=0.001)
    assert studies.run(setting, 200, 200, clusters)["called"] >= 0.77, name  # 80 %, less one standard error of 200 studies
