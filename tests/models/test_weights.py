from __future__ import annotations

import argparse

import pytest
import safetensors.torch
import torch
import torchvision

from medssl.errors import WeightsError
from medssl.files import sha256_of_file
from medssl.models.encoder import build_encoder
from medssl.models.encoder_file import save_encoder
from medssl.models.weights import init_stream, initialise, sha256_of_init


@pytest.fixture
def encoder():
    return build_encoder("resnet18", "small")


def network_state(seed: int = 0, stem: str = "small") -> dict[str, torch.Tensor]:
    source = build_encoder("resnet18", stem)
    initialise(source, "random", seed=seed)
    return {name: tensor.clone() for name, tensor in source.backbone.network.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["resnet18", "timm/tf_efficientnet_lite0"])
def test_random_is_a_function_of_the_seed_alone(name):
    states = []
    for noise, seed in ((0, 7), (1, 7), (2, 8)):
        torch.manual_seed(noise)
        encoder = build_encoder(name)
        before = torch.get_rng_state()
        record = initialise(encoder, "random", seed=seed)
        assert torch.equal(before, torch.get_rng_state()), "the global generator was moved"
        states.append({name: tensor.clone() for name, tensor in encoder.state_dict().items()})
    assert record.source == "random"
    assert record.sha256 is None
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_random_is_the_librarys_own_initialisation(encoder):
    initialise(encoder, "random", seed=3)
    with init_stream(3):
        expected = torchvision.models.resnet18(num_classes=1000).state_dict()
    own = build_encoder("resnet18")
    initialise(own, "random", seed=3)
    ours = own.backbone.network.state_dict()
    # torchvision draws every layer's default and then Kaiming's over it, so the values depend on the layers' order alone.
    assert all(torch.equal(ours[name], expected[name]) for name in ours)
    assert all(torch.equal(t, torch.ones_like(t)) for n, t in encoder.state_dict().items() if "bn" in n and n.endswith(".weight"))


@pytest.mark.parametrize(("name", "last", "blocks"), [("resnet18", "bn2", 8), ("resnet50", "bn3", 16)])
def test_zero_init_residual_makes_each_block_the_identity(name, last, blocks):
    encoder = build_encoder(name)
    initialise(encoder, "random", seed=0, zero_init_residual=True)
    zeroed = [n for n, t in encoder.named_parameters() if n.endswith(f"{last}.weight") and not t.any()]
    others = [n for n, t in encoder.named_parameters() if n not in zeroed and n.endswith("weight") and not t.any()]
    assert (len(zeroed), others) == (blocks, [])


def test_zero_init_residual_is_refused_where_it_means_nothing(encoder):
    with pytest.raises(WeightsError, match="no residual block"):
        initialise(build_encoder("timm/tf_efficientnet_lite0"), "random", seed=0, zero_init_residual=True)
    with pytest.raises(WeightsError, match="would wipe"):
        initialise(encoder, "imagenet", seed=0, zero_init_residual=True)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_with_known_prefixes(encoder, tmp_path, prefix, suffix):
    state = network_state()
    path = tmp_path / f"weights{suffix}"
    named = {prefix + name: tensor for name, tensor in state.items()}
    (torch.save if suffix == ".pth" else safetensors.torch.save_file)(named, path)
    record = initialise(encoder, path, seed=0)
    assert same(encoder.backbone.network.state_dict(), state)
    assert (record.source, record.sha256) == (f"file: weights{suffix}", sha256_of_file(path))
    assert (record.matched, record.missing, record.unexpected) == (len(state), (), ())


def test_a_wrapped_checkpoint_with_a_classifier(encoder, tmp_path):
    state = network_state()
    torch.save(
        {"epoch": 3, "state_dict": state | {"fc.weight": torch.zeros(2, 512), "fc.bias": torch.zeros(2)}}, tmp_path / "a.pth"
    )
    record = initialise(encoder, tmp_path / "a.pth", seed=0)
    assert same(encoder.backbone.network.state_dict(), state)
    assert record.unexpected == ("fc.bias", "fc.weight")


def test_a_backbone_that_does_not_load_fully_is_an_error(encoder, tmp_path):
    state = network_state()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    cases = {
        "lacks 1, first bn1.weight": {name: tensor for name, tensor in state.items() if name != "bn1.weight"},
        "has besides 1, first projector.0.weight": state | {"projector.0.weight": torch.zeros(1)},
        "in another shape 1, first conv1.weight": network_state(stem="standard"),
        "is not a state dict": {"epoch": torch.tensor(1), "note": "x"},
    }
    for words, value in cases.items():
        torch.save(value, tmp_path / "bad.pth")
        with pytest.raises(WeightsError) as caught:
            initialise(encoder, tmp_path / "bad.pth", seed=0)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert same(before, encoder.state_dict()), "a refused file changed the encoder"


@pytest.mark.parametrize("prefix", ["backbone.", "module.backbone.", ""])
@pytest.mark.parametrize("name", ["resnet50", "timm/resnet50"])
def test_radimagenets_resnet_by_the_place_among_the_children(tmp_path, prefix, name):
    """As the published checkpoint was saved: Sequential of the first nine children, below `backbone`."""
    torch.manual_seed(0)
    original = torchvision.models.resnet50()
    sequential = torch.nn.Sequential(*list(original.children())[:9])
    state = {prefix + key: tensor for key, tensor in sequential.state_dict().items()}
    assert f"{prefix}4.0.conv1.weight" in state
    assert f"{prefix}0.weight" in state
    torch.save(state, tmp_path / "ResNet50.pt")
    encoder = build_encoder(name)
    record = initialise(encoder, tmp_path / "ResNet50.pt", seed=0)
    network = encoder.backbone.network.state_dict()
    assert all(torch.equal(network[key], tensor) for key, tensor in original.state_dict().items() if not key.startswith("fc."))
    assert (record.matched, record.unexpected) == (len(network), ())
    assert record.source == "file: ResNet50.pt, RadImageNet's names mapped to the network's"
    whole = torch.nn.Sequential(*original.children())  # with the classifier
    torch.save({f"backbone.{key}": tensor for key, tensor in whole.state_dict().items()}, tmp_path / "whole.pt")
    assert initialise(encoder, tmp_path / "whole.pt", seed=0).unexpected == ("fc.bias", "fc.weight")


def test_radimagenets_densenet(tmp_path):
    torch.manual_seed(0)
    original = torchvision.models.densenet121()
    sequential = torch.nn.Sequential(*list(original.children())[:-1])
    torch.save({f"backbone.{key}": tensor for key, tensor in sequential.state_dict().items()}, tmp_path / "DenseNet121.pt")
    encoder = build_encoder("timm/densenet121")
    record = initialise(encoder, tmp_path / "DenseNet121.pt", seed=0)
    network = encoder.backbone.network.state_dict()
    assert torch.equal(network["features.norm5.bias"], original.features.norm5.bias)
    assert record.matched == len(network) == len(sequential.state_dict())


def test_radimagenets_weights_of_another_network_are_refused(encoder, tmp_path):
    sequential = torch.nn.Sequential(*list(torchvision.models.resnet50().children())[:9])
    torch.save({f"backbone.{key}": tensor for key, tensor in sequential.state_dict().items()}, tmp_path / "ResNet50.pt")
    with pytest.raises(
        WeightsError, match=r"does not fit resnet18 .* has besides \d+, first layer1\.0\.bn3\.bias, .* name the weights"
    ):
        initialise(encoder, tmp_path / "ResNet50.pt", seed=0)


def test_the_line_says_what_was_loaded(encoder, tmp_path):
    state = network_state()
    torch.save(state | {"fc.weight": torch.zeros(2, 512), "fc.bias": torch.zeros(2)}, tmp_path / "a.pth")
    line = initialise(encoder, tmp_path / "a.pth", seed=0).line()
    assert line == f"{len(state)} matched, 0 missing, 2 unexpected (the classifier head: fc.bias, fc.weight), from file: a.pth"
    assert initialise(encoder, "random", seed=0).line() == f"{len(state)} tensors drawn at random"


def test_the_names_of_an_error_are_three(encoder, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "bad.pth")
    with pytest.raises(
        WeightsError, match=r"of (\d+) tensors it lacks \1, first bn1\.bias, bn1\.num_batches_tracked, bn1\.running_mean; name"
    ):
        initialise(encoder, tmp_path / "bad.pth", seed=0)


def test_the_digest_of_an_init_is_that_of_its_weights(tmp_path, encoder, encoder_card):
    card = save_encoder(tmp_path / "run", encoder, encoder_card(encoder))
    assert sha256_of_init(tmp_path / "run") == card.weights_sha256
    torch.save(network_state(), tmp_path / "a.pth")
    assert sha256_of_init(tmp_path / "a.pth") == sha256_of_file(tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="neither a folder"):
        sha256_of_init(tmp_path / "none.pth")


def test_files_that_are_no_weights(encoder, tmp_path):
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 cut off")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 5)
    (tmp_path / "notes.txt").write_text("x")
    torch.save({"args": argparse.Namespace(lr=1), "state_dict": {}}, tmp_path / "code.pth")
    for name, words in {
        "cut.pth": "cut.pth",
        "cut.safetensors": "cannot be read",
        "notes.txt": "is no weights file",
        "code.pth": "could run code",
        "nowhere.pth": "neither a folder",
    }.items():
        with pytest.raises(WeightsError, match=words) as caught:
            initialise(encoder, tmp_path / name, seed=0)
        assert "\n" not in str(caught.value)


def test_from_an_encoder_folder(encoder, tmp_path, encoder_card):
    source = build_encoder("resnet18", "small")
    initialise(source, "random", seed=5)
    card = save_encoder(tmp_path / "run", source, encoder_card(source))
    record = initialise(encoder, tmp_path / "run", seed=0)
    assert same(encoder.state_dict(), source.state_dict())
    assert (record.source, record.sha256) == ("encoder: run", card.weights_sha256)
    assert record.card == card
    again = build_encoder("resnet18", "small")
    assert initialise(again, tmp_path / "run" / "encoder.safetensors", seed=0) == record, "its file stands for its folder"
    assert same(again.state_dict(), source.state_dict())
    with pytest.raises(WeightsError, match="stem is small"):
        initialise(build_encoder("resnet18"), tmp_path / "run", seed=0)
    with pytest.raises(WeightsError, match="another normalisation"):
        initialise(build_encoder("resnet18", "small", mean=[0.5] * 3), tmp_path / "run", seed=0)
    (tmp_path / "run" / "encoder.safetensors").write_bytes(b"x")
    with pytest.raises(WeightsError, match="sha256"):
        initialise(encoder, tmp_path / "run", seed=0)
