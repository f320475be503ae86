"""What only a GPU can show: exact resume in deterministic mode, half precision, pixels that lie on it, memory that is too small."""

from __future__ import annotations

import copy
import signal
import types
import warnings
from pathlib import Path

import pytest
import torch

from medssl.augment.policies import build_policy, policy_settings
from medssl.data.placement import place
from medssl.errors import CapacityError
from medssl.methods import METHODS, Batch, build_method, method_settings
from medssl.methods.collapse import CollapseMonitor
from medssl.models.encoder import build_encoder
from medssl.models.recompute import recompute_activations
from medssl.models.weights import init_stream
from medssl.stages.devices import choose_device, choose_precision
from medssl.training.checkpoint import Checkpoints
from medssl.training.compiling import compile_or_say
from medssl.training.loop import Run, ViewPlan, train
from medssl.training.optimizers import build_optimizer
from medssl.training.stop import StopFlag, Stopped

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SMALL = {
    "simsiam": {"projector_dim": 16, "projector_hidden": 16},
    "byol": {"projector_hidden": 16, "projector_dim": 8, "predictor_hidden": 16},
    "moco": {"projector_dim": 8, "queue_size": 60, "bn_group": 5},
    "simclr": {"projector_hidden": 16, "projector_dim": 8},
    "swav": {"projector_hidden": 16, "projector_dim": 8, "prototypes": 12, "small_views": 0, "queue_size": 0},
    "barlow_twins": {"projector_widths": [16, 16]},
}
SIZE, BATCH = 32, 10


@pytest.fixture
def gpu():
    """A device chosen as a study does; what it changes for the whole process is put back."""

    def choose(*, deterministic: bool, precision: str = "auto") -> tuple[torch.device, torch.dtype]:
        study = types.SimpleNamespace(
            device="auto", deterministic=deterministic, pretrain=types.SimpleNamespace(precision=precision)
        )
        device = choose_device(study)
        return device, choose_precision(study, device)

    yield choose
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False


def make_run(source, chosen, folder: Path | None = None, name: str = "simsiam", **changes) -> Run:
    device, precision = chosen
    with init_stream(0):
        encoder = build_encoder("resnet18")
    method = build_method(method_settings({"name": name} | SMALL[name]), encoder, seed=0).to(device)
    method = method.to(memory_format=torch.channels_last)
    recipe = METHODS[name][1].recipe
    plan = ViewPlan(build_policy(policy_settings({"policy": "chest_xray"})), SIZE)
    run = Run(
        module=method,
        forward=lambda module, drawn: module(Batch(drawn.views, drawn.related)),
        optimizer=build_optimizer(recipe, method.parameter_groups(), 0.01),
        source=source,
        views=[plan] * len(method.view_spec().views),
        epochs=3,
        batch_size=BATCH,
        seed=1,
        device=device,
        precision=precision,
        checkpoints=None if folder is None else Checkpoints(folder),
        before_step=method.before_step,
        after_backward=method.after_backward,
        after_step=method.after_step,
    )
    for key, value in changes.items():
        setattr(run, key, value)
    return run


def weights(run: Run) -> list[torch.Tensor]:
    return list(run.module.state_dict().values())


def losses_of(run: Run) -> list[float]:
    found = []
    run.on_step = lambda step: found.append(step.loss)
    train(run, StopFlag())
    return found


@pytest.mark.parametrize("precision", ["auto", "float32", "float16"])
@pytest.mark.parametrize("name", list(SMALL))
def test_deterministic_it_goes_on_bit_by_bit(source, gpu, tmp_path, name, precision):
    chosen = gpu(deterministic=True, precision=precision)
    whole = make_run(source, chosen, name=name)
    losses = losses_of(whole)
    assert all(loss == loss for loss in losses[-3:])
    stop = StopFlag()
    first = make_run(source, chosen, tmp_path / "c", name)
    first.on_step = lambda step: step.step == 3 and stop.set(signal.SIGTERM)
    with pytest.raises(Stopped):
        train(first, stop)
    second = make_run(source, chosen, tmp_path / "c", name)
    assert losses_of(second) == losses[3:]
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))


def test_pixels_on_the_gpu_give_the_same_run(source, gpu):
    chosen = gpu(deterministic=True)
    read = make_run(source, chosen)
    expected = losses_of(read)
    held = make_run(copy.copy(source), chosen)
    assert "is on the GPU" in place(held.source, held.device, "gpu")
    assert losses_of(held) == expected


def test_the_gpu_gives_what_the_cpu_gives(source, gpu):
    there, precision = gpu(deterministic=True, precision="float32")
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        found = losses_of(make_run(source, (there, precision)))[:2]
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    assert found == pytest.approx(losses_of(make_run(source, (torch.device("cpu"), precision)))[:2], abs=2e-3)


def test_recomputed_activations_are_the_same(source, gpu):
    chosen = gpu(deterministic=True)
    expected = losses_of(make_run(source, chosen))
    run = make_run(source, chosen)
    recompute_activations(run.module.encoder)
    assert losses_of(run) == expected


def test_a_compiled_encoder_trains(source, gpu):
    run = make_run(source, gpu(deterministic=False), batch_size=8)
    images = torch.rand(8, 1, SIZE, SIZE, device=run.device)

    def trial() -> None:
        with torch.autocast("cuda", dtype=run.precision):
            run.module.encoder(images).float().square().mean().backward()

    said: list[str] = []
    run.module.train()
    assert compile_or_say(run.module.encoder, trial, said.append), said
    found = losses_of(run)
    assert all(loss == loss for loss in found)


def test_memory_that_is_too_small_is_one_line_that_says_what_halves_it(source, gpu):
    run = make_run(
        source, gpu(deterministic=False), views=[ViewPlan(build_policy(policy_settings({"policy": "plain"})), 1024)] * 2
    )
    total = torch.cuda.get_device_properties(run.device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2e8) / total)
    try:
        with pytest.raises(CapacityError, match=r"batches of 10 do not fit into the \d+ GB of the GPU; pretrain\.accumulate: 2 "):
            train(run, StopFlag())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_step_does_not_wait_for_the_gpu_more_than_it_must(source, gpu):
    """Each wait leaves the GPU without work; one a step is meant, that for loss and gradient norm."""
    run = make_run(copy.copy(source), gpu(deterministic=False))
    place(run.source, run.device, "gpu")
    monitor = CollapseMonitor(run.module.dim, run.module.encoder.feature_dim)
    waits: list[list[str]] = []

    def watch(step) -> None:
        for output in step.outputs:
            monitor.update(output)
        waits.append([str(warning.message) + warning.filename + str(warning.lineno) for warning in caught])
        caught.clear()

    run.on_step = watch
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train(run, StopFlag())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert max(map(len, waits[2:])) <= 1, waits[3]
