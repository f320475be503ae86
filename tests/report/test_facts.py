from __future__ import annotations

import dataclasses

import pytest

from medssl.report.facts import ArmFacts


@pytest.mark.parametrize("text", ["/home/anna/archive", "see ~/data", r"D:\xray\anna", "weights:/mnt/x/y.pt", "file://x/y"])
def test_a_fact_with_a_folder_is_refused(facts, text):
    with pytest.raises(ValueError, match="shows no folders"):
        dataclasses.replace(facts, notes=[text])
    with pytest.raises(ValueError, match="shows no folders"):
        dataclasses.replace(facts, arms=[ArmFacts("random", "random", weights=text)])
    with pytest.raises(ValueError, match="shows no folders"):
        dataclasses.replace(facts, versions={"torch": text})


@pytest.mark.parametrize(
    "text", ["timm/tf_efficientnet_lite0", "https://doi.org/10.1/x", "80/20", "images and/or tiles", "1 / 2"]
)
def test_a_name_with_a_slash_is_no_folder(facts, text):
    assert dataclasses.replace(facts, notes=[text]).notes == [text]


def test_pretrained_arms_are_those_with_a_method(facts):
    assert facts.pretrained == {"in_domain"}
