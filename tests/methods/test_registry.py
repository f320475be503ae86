"""What every method keeps: its contract with the loop, its groups, an exact resume, a loss that falls."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssl.errors import StudyError
from medssl.methods import METHODS, Batch, Method, build_method, method_settings
from medssl.models.weights import init_stream
from medssl.seeds import seed_global, torch_generator
from medssl.training.checkpoint import Checkpoints
from medssl.training.optimizers import build_optimizer, set_learning_rates

NAMES = list(METHODS)
# Sizes for a toy; everything else is each method's default.
SMALL = {
    "simsiam": {"projector_dim": 32, "projector_hidden": 32},
    "simtriplet": {"projector_dim": 32, "projector_hidden": 32},
    "byol": {"projector_hidden": 64, "projector_dim": 32, "predictor_hidden": 64},
    "moco": {"projector_dim": 32, "queue_size": 256, "momentum": 0.9},
    "simclr": {"projector_hidden": 64, "projector_dim": 32},
    "swav": {"projector_hidden": 64, "projector_dim": 32, "prototypes": 24, "freeze_steps": 2},
    "barlow_twins": {"projector_widths": [64, 64]},
}


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small lose time to more threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class ToyEncoder(nn.Sequential):
    feature_dim = 32

    def __init__(self) -> None:
        layers, channels = [], 1
        for width in (8, 16, 32):
            layers += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def build(name: str, **settings) -> Method:
    with init_stream(0):
        encoder = ToyEncoder()
    return build_method(method_settings({"name": name} | SMALL[name] | settings), encoder, seed=0).train()


@functools.cache
def toy_images() -> Tensor:
    """(512, 1, 16, 16): smooth fields, so that each image can be told from the others."""
    return F.interpolate(torch.randn(512, 1, 5, 5, generator=torch_generator(0, "images")), size=(16, 16), mode="bicubic")


def toy_batch(method: Method, step: int, rows: int = 64) -> Batch:
    """Views of a random batch, a function of the step: shifted, brighter or darker, noisy."""
    generator = torch_generator(1, "batch", step)
    images = toy_images()[torch.randint(512, (rows,), generator=generator)]
    views = []
    for view in method.view_spec().views:
        x = images.roll(torch.randint(-1, 2, (2,), generator=generator).tolist(), (2, 3))
        gain = 1 + 0.4 * (torch.rand(rows, 1, 1, 1, generator=generator) - 0.5)
        x = x * gain + 0.1 * torch.randn(x.shape, generator=generator)
        views.append(x if view.size == 1 else F.interpolate(x, scale_factor=view.size))
    related = torch.ones(rows, dtype=torch.bool) if any(view.related for view in method.view_spec().views) else None
    return Batch(views, related)


def train(method: Method, optimizer, steps: range, total: int) -> list[Tensor]:
    """As the loop does it."""
    losses = []
    for step in steps:
        seed_global(0, "step", step)
        set_learning_rates(optimizer, step, total, 0, method.recipe.final_lr)
        method.before_step(step, total)
        optimizer.zero_grad(set_to_none=True)
        loss = method(toy_batch(method, step)).loss
        loss.backward()
        method.after_backward(step, total)
        optimizer.step()
        method.after_step(step, total)
        losses.append(loss.detach())
    return losses


def optimizer_of(method: Method, lr: float | None = None):
    return build_optimizer(method.recipe, method.parameter_groups(), lr or method.recipe.peak_lr(64))


@pytest.mark.parametrize("name", NAMES)
def test_output_keeps_the_contract(name):
    method = build(name)
    output = method(toy_batch(method, 0))
    full = [view for view in method.view_spec().views if view.size == 1]
    assert output.loss.shape == ()
    assert output.loss.dtype == torch.float32
    assert output.loss.requires_grad
    assert output.z.shape == (len(full), 64, method.dim)
    assert output.features.shape == (len(full), 64, 32)
    tensors = [output.z, output.features, *output.logs.values()] + ([] if output.p is None else [output.p])
    assert all(x.dtype == torch.float32 and not x.requires_grad and x.isfinite().all() for x in tensors)
    assert all(value.ndim == 0 for value in output.logs.values())
    assert (output.p is not None) == hasattr(method, "predictor")


@pytest.mark.parametrize("name", NAMES)
def test_every_trainable_parameter_is_in_exactly_one_group(name):
    method = build(name, encoder_lr_scale=0.25)
    groups = method.parameter_groups()
    listed = [id(parameter) for one in groups for parameter in one["params"]]
    trainable = {id(parameter) for parameter in method.parameters() if parameter.requires_grad}
    assert len(listed) == len(set(listed))
    assert set(listed) == trainable
    assert len({one["name"] for one in groups}) == len(groups)
    own = {id(parameter) for parameter in method.encoder.parameters()}
    plain = {one["name"]: one["lr_scale"] for one in build(name).parameter_groups()}
    for one in groups:
        of_encoder = {id(parameter) in own for parameter in one["params"]}
        assert of_encoder == {one["name"].startswith("encoder")}
        assert one["lr_scale"] == pytest.approx(plain[one["name"]] * (0.25 if of_encoder == {True} else 1))


@pytest.mark.parametrize("name", NAMES)
def test_which_parameters_are_excluded(name):
    excluded = [one["adaptation"] is False for one in build(name).parameter_groups() for _ in one["params"]]
    one_dimensional = [p.ndim <= 1 for one in build(name).parameter_groups() for p in one["params"]]
    papers_that_exclude = {"byol", "simclr", "barlow_twins"}
    assert excluded == (one_dimensional if name in papers_that_exclude else [False] * len(excluded))
    assert all(one["weight_decay"] == one["adaptation"] for one in build(name).parameter_groups())


@pytest.mark.parametrize(
    ("name", "changes"),
    [*((name, {}) for name in NAMES), ("swav", {"queue_size": 128, "queue_from": 0.1}), ("moco", {"bn_group": 16})],
)
def test_resume_is_exact(name, changes, tmp_path):
    whole = build(name, **changes)
    optimizer = optimizer_of(whole, 0.1)
    expected = train(whole, optimizer, range(8), 8)

    first = build(name, **changes)
    optimizer = optimizer_of(first, 0.1)
    train(first, optimizer, range(5), 8)
    state = {"module": first.state_dict(), "optimizer": optimizer.state_dict()}
    Checkpoints(tmp_path).save(5, inputs={}, state=state, surroundings={})

    second = build(name, **changes)
    optimizer = optimizer_of(second, 0.1)
    loaded = Checkpoints(tmp_path).load({})
    step, state = loaded.step, loaded.state
    second.load_state_dict(state["module"], strict=True)
    optimizer.load_state_dict(state["optimizer"])
    assert train(second, optimizer, range(step, 8), 8) == expected[5:]
    for (key, value), (_, wanted) in zip(second.state_dict().items(), whole.state_dict().items(), strict=True):
        assert torch.equal(value, wanted), key


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast_keeps_the_loss(name):
    seed_global(0, "step", 0)
    method = build(name)
    expected = method(toy_batch(method, 0)).loss
    method = build(name)
    seed_global(0, "step", 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(toy_batch(method, 0))
    assert output.loss.dtype == output.z.dtype == output.features.dtype == torch.float32
    # SimSiam's losses are near 0 at the start, where a relative error means nothing.
    torch.testing.assert_close(output.loss, expected, rtol=1e-2, atol=1e-2 if name.startswith("sim") else 0)
    output.loss.backward()
    assert all(p.grad.isfinite().all() for one in method.parameter_groups() for p in one["params"] if p.grad is not None)


# Rates at which 60 steps are enough (LARS moves weights by a thousandth of the rate a step), and how much lower the last
# losses then are at least: about half of what was measured with four draws of the data.
FALLS = {
    "simsiam": (0.05, 0.2),
    "simtriplet": (0.05, 0.6),
    "byol": (2.0, 1.4),
    "moco": (0.05, 0.35),
    "simclr": (2.0, 1.2),
    "swav": (2.0, 0.65),
    "barlow_twins": (2.0, 8.0),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(name):
    """Against the same network at a rate of nothing, which sees the same batches: they differ much in difficulty."""
    rate, fall = FALLS[name]
    trained, still = (build(name), build(name))
    losses, control = (torch.stack(train(m, optimizer_of(m, lr), range(60), 60)) for m, lr in ((trained, rate), (still, 1e-9)))
    assert losses.isfinite().all()
    assert losses[-8:].mean() < control[-8:].mean() - fall


@pytest.mark.parametrize(
    ("name", "head", "parameters"),
    [
        ("byol", "projector", 2048 * 4096 + 2 * 4096 + 4096 * 256),
        ("byol", "predictor", 256 * 4096 + 2 * 4096 + 4096 * 256),
        ("moco", "projector", 2048 * 2048 + 2048 + 2048 * 128 + 128),
        ("simclr", "projector", 2048 * 2048 + 2 * 2048 + 2048 * 128 + 128),
        ("swav", "projector", 2048 * 2048 + 2 * 2048 + 2048 * 128 + 128),
        ("swav", "prototypes", 128 * 3000),
        ("barlow_twins", "projector", 2048 * 8192 + 2 * (8192 * 8192 + 2 * 8192)),
    ],
)
def test_sizes_of_the_heads_at_resnet50s_width(name, head, parameters):
    class Wide(nn.Linear):
        feature_dim = 2048

    with torch.device("meta"):
        method = METHODS[name][1](METHODS[name][0](), Wide(4, 2048))
    assert sum(parameter.numel() for parameter in getattr(method, head).parameters()) == parameters


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_described_and_checked(name):
    settings = METHODS[name][0]
    assert settings().name == name
    # SimTriplet narrows its parent's loss, which is described there.
    undescribed = {key for key, value in settings.model_fields.items() if not value.description}
    assert undescribed <= {"name", "loss"}
    with pytest.raises(StudyError, match="unknown key") as caught:
        method_settings({"name": name, "weight_decay": 0.1})
    assert "\n" not in str(caught.value)
    with pytest.raises(StudyError, match="encoder_lr_scale"):
        method_settings({"name": name, "encoder_lr_scale": 2.0})


def test_recipes_are_those_of_the_papers():
    """Name, rate at batch 256, weight decay, warm-up, where the cosine ends."""
    found = {
        name: (r.name, r.peak_lr(256), r.weight_decay, r.warmup_epochs, r.final_lr)
        for name, r in ((name, method.recipe) for name, (_, method) in METHODS.items())
    }
    assert found == {
        "simsiam": ("sgd", 0.05, 1e-4, 0, 0),
        "simtriplet": ("sgd", 0.05, 1e-4, 0, 0),
        "byol": ("lars", 0.3, 1e-6, 10, 0),
        "moco": ("sgd", 0.03, 1e-4, 0, 0),
        "simclr": ("lars", 0.3, 1e-6, 10, 0),
        "swav": ("lars", 0.6, 1e-6, 0, 0.001),
        "barlow_twins": ("lars", 0.2, 1e-6, 10, 0.001),
    }
    assert {method.recipe.scaling for _, method in METHODS.values()} == {"linear"}
    assert {method.recipe.momentum for _, method in METHODS.values()} == {0.9}


@pytest.mark.parametrize("name", NAMES)
def test_heads_are_a_function_of_the_seed_alone(name):
    states = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        states.append(build(name).state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    other = build_method(method_settings({"name": name} | SMALL[name]), ToyEncoder(), seed=1)
    key = next(key for key in states[0] if key.startswith("projector") and states[0][key].ndim == 2)
    assert not torch.equal(states[0][key], other.state_dict()[key])


def test_numbers_that_do_not_go_together_are_said():
    def cautions(name: str, images: int, batch: int, **settings) -> list[str]:
        return build_method(method_settings({"name": name, **settings}), ToyEncoder(), seed=0).cautions(images, batch)

    assert cautions("moco", 2_000, 64, queue_size=1024) == []
    (said,) = cautions("moco", 1_000, 64, queue_size=1024)
    assert said.startswith("queue_size is 1,024 and there are 1,000 images")
    assert cautions("swav", 100_000, 256, queue_size=3840) == []
    (said,) = cautions("swav", 100_000, 256)
    assert said.startswith("3,000 prototypes share 256 projections")
    assert len(cautions("swav", 100, 64, queue_size=128)) == 2
    assert cautions("simsiam", 10, 4) == []
