from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from medssl.errors import CheckpointError
from medssl.files import sha256_of_file
from medssl.models.encoder import build_encoder
from medssl.models.encoder_file import load_encoder_folder, read_card, save_encoder


@pytest.fixture
def saved(tmp_path, encoder_card):
    encoder = build_encoder("resnet18", "small").eval()
    card = save_encoder(tmp_path / "encoder", encoder, encoder_card(encoder))
    return tmp_path / "encoder", encoder, card


def edit(folder, **changes):
    path = folder / "encoder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def resave(folder, tensors):
    safetensors.torch.save_file(tensors, folder / "encoder.safetensors")
    edit(folder, weights_sha256=sha256_of_file(folder / "encoder.safetensors"))


def test_round_trip_is_exact(saved):
    folder, encoder, card = saved
    loaded, read = load_encoder_folder(folder)
    assert read == card == read_card(folder)
    assert read.weights_sha256 == sha256_of_file(folder / "encoder.safetensors")
    assert not loaded.training
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert sorted(path.name for path in folder.iterdir()) == ["encoder.json", "encoder.safetensors"]


def test_a_card_of_another_network_is_not_written(tmp_path, encoder_card):
    encoder = build_encoder("resnet18", "small")
    for change in ({"backbone": "resnet34"}, {"feature_dim": 7}, {"normalization": {"mean": [0.0] * 3, "std": [1.0] * 3}}):
        with pytest.raises(ValueError, match=next(iter(change))):
            save_encoder(tmp_path, encoder, encoder_card(encoder, **change))
    assert list(tmp_path.iterdir()) == []


def test_other_weights_than_the_card_names(saved):
    folder, encoder, _ = saved
    tensors = dict(encoder.state_dict())
    tensors["mean"] = tensors["mean"] + 1
    safetensors.torch.save_file(tensors, folder / "encoder.safetensors")
    refused(folder, "sha256")


def test_missing_unexpected_and_misshapen_tensors(saved):
    folder, encoder, _ = saved
    tensors = dict(encoder.state_dict())
    resave(folder, {name: tensor for name, tensor in tensors.items() if name != "std"})
    refused(folder, "lacks 1 tensors, first std")
    resave(folder, tensors | {"stranger": torch.zeros(1)})
    refused(folder, "also holds 1 tensors, first stranger")
    resave(folder, tensors | {"std": torch.ones(3)})
    refused(folder, "std is")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 2}, "format_version is 2"),
        ({"stranger": 1}, "stranger: unknown key"),
        ({"seed": "0"}, "seed"),
        ({"backbone": "resnet81"}, "resnet18"),
        ({"backbone": "resnet34"}, "lacks"),
        ({"feature_dim": 3}, "feature_dim"),
        ({"init": {"source": "random", "sha256": "no hash"}}, "sha256"),
    ],
)
def test_damaged_cards(saved, change, words):
    folder, _, _ = saved
    edit(folder, **change)
    refused(folder, words)


def test_missing_files(saved, tmp_path):
    folder, _, _ = saved
    (folder / "encoder.safetensors").unlink()
    refused(folder, "is missing")
    refused(tmp_path / "nowhere", "no such encoder")
    (folder / "encoder.json").write_text("{")
    refused(folder, "not readable JSON")


def refused(folder, words):
    with pytest.raises(CheckpointError) as caught:
        load_encoder_folder(folder)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
