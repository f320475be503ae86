"""A toy on which SimSiam shows within a hundred steps what collapses and what does not: about 1.5 s of one thread.

2048 images of 16 x 16: one of eight prototypes and a field of the image's own. A view rolls, flips, brightens and adds noise,
each sample by its own draw. The network has three convolutions of 32 channels, z has 128 dimensions, the predictor 32.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssl.methods import Batch, build_method
from medssl.methods.collapse import effective_rank, std_sqrt_d
from medssl.methods.simsiam import SimSiam, SimSiamSettings
from medssl.models.weights import init_stream
from medssl.training.optimizers import build_optimizer

IMAGES, SIDE, BATCH, DIM = 2048, 16, 128, 128
EVERY = 50  # steps from one look at the figures to the next

Passed = list[tuple[Tensor, Tensor, Tensor]]  # features, z and p of each view


class ToyEncoder(nn.Sequential):
    """(N, 1, 16, 16) to (N, 32)."""

    feature_dim = 32

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for channels in (1, 32, 32):
            layers += [nn.Conv2d(channels, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def images(generator: torch.Generator) -> Tensor:
    """(2048, 1, 16, 16): eight smooth prototypes, each image with a finer smooth field of its own."""
    enlarge = functools.partial(F.interpolate, size=(SIDE, SIDE), mode="bicubic")
    prototypes = torch.randn(8, 1, 4, 4, generator=generator)
    own = torch.randn(IMAGES, 1, 6, 6, generator=generator)
    return enlarge(prototypes)[torch.randint(8, (IMAGES,), generator=generator)] + 0.7 * enlarge(own)


def view(x: Tensor, generator: torch.Generator) -> Tensor:
    """Another look at images (N, 1, 16, 16): by up to two pixels, mirrored or not, of other contrast and brightness, with noise."""
    n, side = len(x), torch.arange(SIDE)
    down, across = torch.randint(-2, 3, (2, n, 1), generator=generator)
    mirrored = torch.rand(n, 1, generator=generator) < 0.5
    rows, columns = (side + down) % SIDE, (torch.where(mirrored, side.flip(0), side) + across) % SIDE
    x = x[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)
    contrast, brightness = 0.4 * (2 * torch.rand(2, n, 1, 1, 1, generator=generator) - 1)
    return x * (1 + contrast) + brightness + 0.3 * torch.randn(x.shape, generator=generator)


@dataclass(frozen=True)
class Figures:
    """What a run has come to; z and p are those of 1024 images as in training.

    Attributes:
        loss: of the last batch.
        std, rank: `std_sqrt_d` and `effective_rank` of z.
        center_z, center_p: m_o, the length of the mean of z / |z| and of p / |p|.
        eta: share of the centre of p by which the target pulls p away from it: -o_e . o_p / |o_p|^2 with o_e = o_z - o_p
            (2203.16262, section 3).
    """

    loss: float
    std: float
    rank: float
    center_z: float
    center_p: float
    eta: float


def build(seed: int = 0, **settings) -> SimSiam:
    """SimSiam on the toy's network, a function of the seed."""
    with init_stream(seed):
        encoder = ToyEncoder()
    widths = {"projector_dim": DIM, "projector_hidden": DIM, "predictor_hidden": 32}
    return build_method(SimSiamSettings(**widths | settings), encoder, seed=seed)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Networks this small lose time to more threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Training:
    """SimSiam in training at a constant rate, with the optimiser of its recipe; goes on when later figures are asked for."""

    def __init__(self, seed: int, loss: Callable[[Passed], Tensor] | None, settings: dict) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._method, self._own_loss = build(seed, **settings).train(), loss
        recipe = self._method.recipe
        self._optimizer = build_optimizer(recipe, self._method.parameter_groups(), recipe.peak_lr(BATCH))
        self._images = images(self._generator)
        self._at: dict[int, Figures] = {}
        self._step = 0

    def figures(self, step: int) -> Figures:
        """The figures after `step` steps, a multiple of EVERY."""
        with one_thread():
            while step not in self._at:
                loss = self._train()
                if self._step % EVERY == 0:
                    self._at[self._step] = self._measure(loss)
        return self._at[step]

    def _train(self) -> float:
        batch = self._images[torch.randint(IMAGES, (BATCH,), generator=self._generator)]
        views = [view(batch, self._generator) for _ in range(2)]
        embed, own = self._method.embed, self._own_loss
        loss = own([embed(one) for one in views]) if own else self._method(Batch(views)).loss
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._step += 1
        return float(loss.detach())

    @torch.no_grad()
    def _measure(self, loss: float) -> Figures:
        generator = torch.Generator().manual_seed(self._step)  # of its own: a look changes nothing of the training
        passed = [self._method.embed(view(part, generator)) for part in self._images[:1024].split(BATCH)]
        z, p = (torch.cat([one[part] for one in passed]) for part in (1, 2))
        center_z, center_p = (F.normalize(x, dim=1).mean(dim=0) for x in (z, p))
        eta = (center_p - center_z) @ center_p / center_p.square().sum()
        numbers = std_sqrt_d(z), effective_rank(z), center_z.norm(), center_p.norm(), eta
        return Figures(loss, *map(float, numbers))


@functools.cache
def _training(seed: int, loss: Callable[[Passed], Tensor] | None, settings: tuple) -> Training:
    return Training(seed, loss, dict(settings))


def trained(step: int, seed: int = 0, *, loss: Callable[[Passed], Tensor] | None = None, **settings) -> Figures:
    """The figures of a run after `step` steps; no run is repeated.

    Args:
        loss: of what `SimSiam.embed` gives for the two views, in place of the method's own.
        settings: of SimSiam.
    """
    return _training(seed, loss, tuple(sorted(settings.items()))).figures(step)
