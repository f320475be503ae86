"""What the monitor remembers of training, and the figures it makes of it.

All of it is as in training: in eval mode the running statistics of BN lag behind, and give false alarms in the first epochs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medssl.methods.base import Output
from medssl.methods.collapse import figures
from medssl.training.collectives import gather_rows, world_size

ROWS = 1024

# Means over pairs need no more than these to be known to the second digit, and pairs grow with the square.
_CHANNELS_OF_CORRELATION = 512
_ROWS_OF_UNIFORMITY = 512


def check_interval(batch_size: int, total_steps: int) -> int:
    """Steps from one report to the next: a function of settings alone, so that logs have the same steps on every machine.

    A report waits until its rows are new (`ROWS` of them) and costs at most 2 % of the steps between two
    (`benchmarks/monitor.py`). A long run is looked at 200 times, a short one at least 4 times: there a report may cost more than its
    share, but there are only 4.

    Raises:
        ValueError: fewer than one sample or step.
    """
    if batch_size < 1 or total_steps < 1:
        raise ValueError(f"expected at least one sample and one step, got {batch_size} and {total_steps}")
    wanted = max(50, math.ceil(ROWS / batch_size), total_steps // 200)
    return max(1, min(wanted, total_steps // 4))


class CollapseMonitor:
    """The last `rows` images as training saw them: projections, predictions, features, and how near two views of each are.

    Of each image the first view alone is a row: views of one image are not independent. The buffers live on the device of what is
    put in, so that `update` waits for nothing; `report` waits once.

    Attributes:
        dim: d, the width of z and p.
        feature_dim: D, the width of the backbone's features.
        rows: how many images are held at most.
    """

    def __init__(self, dim: int, feature_dim: int, rows: int = ROWS) -> None:
        self.dim, self.feature_dim, self.rows = dim, feature_dim, rows
        # p and alignment come with the first output that has them: not every method has a predictor, or two views in z.
        self._held = {"z": torch.zeros(rows, dim), "features": torch.zeros(rows, feature_dim)}
        self._seen = 0

    @property
    def images(self) -> int:
        """How many were put in, of which the last `rows` are held."""
        return self._seen

    def update(self, output: Output) -> None:
        """Put in one forward pass, with the rows of all ranks; the oldest rows make room. No value is read, so nothing waits for the
        device.

        Raises:
            ValueError: z, p or the features have another shape than (views, n, width), or another width, or another n.
        """
        views = {"z": output.z, "features": output.features} | ({} if output.p is None else {"p": output.p})
        widths = {"z": self.dim, "features": self.feature_dim, "p": self.dim}
        for name, value in views.items():
            if value.ndim != 3 or value.shape[1:] != (output.z.shape[1], widths[name]):
                raise ValueError(f"{name}: expected (views, n, {widths[name]}), got {tuple(value.shape)}")
        rows = {name: value[0].detach().float() for name, value in views.items()}
        if len(output.z) > 1:
            rows["alignment"] = figures.squared_distances(output.z[0].detach(), output.z[1].detach())
        for name, value in _of_all_ranks(rows).items():
            self._put(name, value)
        self._seen += output.z.shape[1] * world_size()

    def report(self) -> dict[str, float]:
        """The figures of the rows held, by name; `figures` says what each is.

        `z_std_sqrt_d`, `z_mean`, `z_residual`, `z_effective_rank`, `z_rank_share` (the rank over that of a Gaussian of the same
        shape), `z_correlation`, `z_auc`, `z_uniformity`, and `z_alignment` where z has two views; the first five of `p_` where there
        is a predictor; `features_std_sqrt_d`, `features_effective_rank`, `features_rank_share`, `features_correlation` and
        `features_auc`; `rows`, how many images they are of. NaN where something held is not finite.

        Raises:
            ValueError: fewer than two images were put in.
        """
        count = min(self._seen, self.rows)
        held = {name: buffer[:count] for name, buffer in self._held.items()}
        found = {}
        for name in ("z", "p", "features"):
            if name in held:
                found |= {f"{name}_{key}": value for key, value in _spread(held[name], mean=name != "features").items()}
        for name in ("z", "features"):
            found |= {f"{name}_{key}": value for key, value in _directions(held[name]).items()}
        if "alignment" in held:
            found["z_alignment"] = held["alignment"].mean()
        found["z_uniformity"] = figures.uniformity(held["z"][:_ROWS_OF_UNIFORMITY])
        values = torch.stack([value.double() for value in found.values()]).tolist()  # the one transfer
        report = dict(zip(found, values, strict=True))
        for name in ("z", "p", "features"):
            if name in held:
                gaussian = figures.gaussian_rank(count, held[name].shape[1])
                report[f"{name}_rank_share"] = report[f"{name}_effective_rank"] / gaussian
        return report | {"rows": float(count)}

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors on the CPU, part of the checkpoint, so that a resumed run reports the same."""
        return {name: buffer.cpu().clone() for name, buffer in self._held.items()} | {"seen": torch.tensor(self._seen)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a state of a monitor of the same shape.

        Raises:
            ValueError: it is of another shape, or of something else.
        """
        shapes = {"z": (self.rows, self.dim), "features": (self.rows, self.feature_dim)}
        shapes |= {"p": (self.rows, self.dim), "alignment": (self.rows,)}
        held = {name: buffer for name, buffer in state.items() if name != "seen"}
        if not {"z", "features", "seen"} <= set(state) or not set(held) <= set(shapes):
            raise ValueError(f"expected the state of a collapse monitor, got {', '.join(state) or 'nothing'}")
        for name, buffer in held.items():
            if buffer.shape != shapes[name]:
                raise ValueError(f"{name}: expected a buffer {shapes[name]}, got {tuple(buffer.shape)}")
        self._held, self._seen = {name: buffer.clone() for name, buffer in held.items()}, int(state["seen"])

    def _put(self, name: str, value: Tensor) -> None:
        buffer = self._held.get(name)
        if buffer is None:
            buffer = value.new_zeros(self.rows, *value.shape[1:])
        buffer = buffer.to(value.device)
        end = self._seen + len(value)
        value = value[-self.rows :]
        buffer[torch.arange(end - len(value), end, device=value.device) % self.rows] = value
        self._held[name] = buffer


def _of_all_ranks(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rows (n, width) or (n,) of all ranks, in rank order; they travel together, since a message costs more than its bytes."""
    if world_size() == 1:
        return rows
    flat = [value.reshape(len(value), -1) for value in rows.values()]
    parts = gather_rows(torch.cat(flat, dim=1)).split([value.shape[1] for value in flat], dim=1)
    return {name: part.reshape(-1, *rows[name].shape[1:]) for name, part in zip(rows, parts, strict=True)}


def _spread(x: Tensor, *, mean: bool) -> dict[str, Tensor]:
    found = {"std_sqrt_d": figures.std_sqrt_d(x), "effective_rank": figures.effective_rank(x)}
    if mean:
        found["mean"], found["residual"] = figures.mean_and_residual(x)
    return found


def _directions(x: Tensor) -> dict[str, Tensor]:
    step = max(1, -(-x.shape[1] // _CHANNELS_OF_CORRELATION))
    return {"correlation": figures.correlation(x[:, ::step]), "auc": figures.singular_value_auc(x)}
