"""What one SimTriplet step with ResNet-50 keeps in memory, for either stem, with and without computing activations again.

    python benchmarks/memory.py [--side 128] [--batch 128] [--out FOLDER]

Counted on the CPU: the bytes of every storage that autograd keeps for the backward pass of a step under bfloat16 autocast, at two small
batches; what grows between them is an image's share, and the real batch is worked out from it. With it stand weights, gradients and
momentum. A GPU's peak is higher by what is alive for moments only (gradients of activations, cuDNN's workspaces) and by what its
allocator cannot use. Where there is a GPU, the peak of its allocator at the real batch is measured too.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from common import machine, report, save

from medssl.methods.base import Batch
from medssl.methods.simtriplet import SimTriplet, SimTripletSettings
from medssl.models.encoder import build_encoder
from medssl.models.recompute import find_blocks, recompute_activations

COUNTED = (2, 4)  # images a batch
STEMS = ("standard", "small")
VIEWS = 3
GB = 1e9


class Kept:
    """Bytes of the storages that autograd keeps, each counted once, by the block in which it is first kept."""

    def __init__(self, network: nn.Module) -> None:
        self.of_block: Counter[int | None] = Counter()
        # Weights and buffers are there anyway.
        self._seen = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
        self._alive: list[Tensor] = []  # an address is not used again as long as its tensor lives
        self._block: int | None = None
        for number, block in enumerate(find_blocks(network.encoder)):
            block.register_forward_pre_hook(lambda *_, number=number: self._enter(number))
            block.register_forward_hook(lambda *_: self._enter(None))

    @property
    def total(self) -> int:
        return sum(self.of_block.values())

    @property
    def largest_block(self) -> int:
        """Of one view."""
        return max((size for block, size in self.of_block.items() if block is not None), default=0) // VIEWS

    def count(self, forward: Callable[[], Any]) -> None:
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
            forward()

    def _enter(self, block: int | None) -> None:
        self._block = block

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self._alive.append(tensor.detach())
            self.of_block[self._block] += storage.nbytes()
        return tensor


def made(stem: str, again: bool) -> SimTriplet:
    torch.manual_seed(0)
    encoder = build_encoder("resnet50", stem)
    if again:
        recompute_activations(encoder)
    return SimTriplet(SimTripletSettings(), encoder).train()


def batch_of(images: int, side: int, device: str = "cpu") -> Batch:
    views = [torch.rand(images, 1, side, side, device=device) for _ in range(VIEWS)]
    return Batch(views, related=torch.ones(images, dtype=torch.bool, device=device))


def counted(stem: str, again: bool, images: int, side: int) -> tuple[int, int]:
    """Bytes that autograd keeps for a step, and those of its largest block."""
    method = made(stem, again)
    kept = Kept(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept.count(lambda: method(batch_of(images, side)))
    return kept.total, kept.largest_block


def at(batch: int, values: list[int]) -> float:
    """On the line through what was counted at COUNTED."""
    share = (values[1] - values[0]) / (COUNTED[1] - COUNTED[0])
    return values[0] + share * (batch - COUNTED[0])


def fixed_bytes(method: nn.Module) -> int:
    """Weights, their gradients and SGD's momentum, and buffers."""
    weights = sum(p.numel() * p.element_size() for p in method.parameters())
    return 3 * weights + sum(b.numel() * b.element_size() for b in method.buffers())


def measured_on_gpu(stem: str, again: bool, batch: int, side: int) -> float | None:
    """Peak bytes of the allocator over two whole steps at the real batch, or None where they do not fit."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        method = made(stem, again).to("cuda", memory_format=torch.channels_last)
        optimiser = torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9)
        views = batch_of(batch, side, "cuda")
        for _ in range(2):
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = method(views).loss
            loss.backward()
            optimiser.step()
    except torch.OutOfMemoryError:
        return None
    return torch.cuda.max_memory_allocated()


def measure(stem: str, batch: int, side: int) -> list[dict[str, Any]]:
    """Two rows of the table: without and with recomputation."""
    rows, largest = [], 0.0
    for again in (False, True):
        found = [counted(stem, again, images, side) for images in COUNTED]
        totals = [total for total, _ in found]
        if not again:
            largest = at(batch, [block for _, block in found])
        kept, fixed = at(batch, totals), fixed_bytes(made(stem, again))
        # Computed again, the activations of one block at a time are there beside what was kept.
        moment = largest if again else 0.0
        row = {
            "stem": stem,
            "recomputed": "blocks" if again else "nothing",
            "per image, MB": f"{(totals[1] - totals[0]) / (COUNTED[1] - COUNTED[0]) / 1e6:.1f}",
            f"kept at {batch}, GB": f"{kept / GB:.2f}",
            "one block again, GB": f"{moment / GB:.2f}",
            "weights, gradients, momentum, GB": f"{fixed / GB:.2f}",
            "sum, GB": f"{(kept + moment + fixed) / GB:.2f}",
        }
        if torch.cuda.is_available():
            peak = measured_on_gpu(stem, again, batch, side)
            row["GPU's peak, GB"] = "does not fit" if peak is None else f"{peak / GB:.2f}"
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=128, help="px")
    parser.add_argument("--batch", type=int, default=128, help="images a step; three views of each")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    rows = [row for stem in STEMS for row in measure(stem, arguments.batch, arguments.side)]
    where = machine(["torch", "torchvision"]) | {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none"}
    report(f"Memory of a SimTriplet step, ResNet-50, {arguments.side} px, batch {arguments.batch}, bfloat16", rows)
    print(f"\nCounted on the CPU at batches of {COUNTED[0]} and {COUNTED[1]}: not the peak of a GPU, which is higher.")
    if not torch.cuda.is_available():
        print("There is no GPU here, so that none was measured.")
    save(arguments.out / "memory.json", {"machine": where, "side": arguments.side, "batch": arguments.batch, "rows": rows})


if __name__ == "__main__":
    main()
