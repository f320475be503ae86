"""Seeded damage, and a process that reads damaged files. Run by `test_fuzz_long.py`; its functions come by `conftest.py`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np


def mutate(content: bytes, generator: np.random.Generator) -> bytes:
    """`content` with seeded damage: bytes and bits changed, parts cut, doubled or moved, lengths that lie, the end gone."""
    damaged = np.frombuffer(content, np.uint8).copy()
    # Headers stand at the front: half of the damage goes there.
    reach = len(damaged) if generator.random() < 0.5 else min(len(damaged), 1500)
    count = int(generator.choice([1, 1, 5, 40]))
    places = generator.integers(0, reach, count)
    kind = generator.choice(["bytes", "bits", "lengths", "parts", "swap"])
    if kind == "bytes":
        damaged[places] = generator.integers(0, 256, count)
    elif kind == "bits":
        damaged[places] ^= np.uint8(1) << generator.integers(0, 8, count).astype(np.uint8)
    elif kind == "lengths":
        for place in places[:5]:
            lie = generator.choice([0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, int(generator.integers(2**32))])
            width = int(generator.choice([2, 4]))
            value = np.frombuffer(int(lie).to_bytes(4, "little")[:width], np.uint8)
            damaged[place : place + width] = value[: len(damaged) - place]
    else:
        start, other = sorted(generator.integers(0, reach, 2))
        length = min(int(generator.integers(1, 64)), len(damaged) - other)
        part = damaged[start : start + length].copy()
        damaged[start : start + length] = damaged[other : other + length][: len(part)]
        if kind == "swap":
            damaged[other : other + length][: len(part)] = part
        else:
            damaged = np.concatenate([damaged[:other], part, damaged[other:]])
    out = damaged.tobytes()
    return out[: len(out) if generator.random() < 0.8 else int(generator.integers(1, len(out)))]


def main() -> None:
    """READER FOLDER SEED FIRST LAST: read that many damaged copies of FOLDER's files; a line before each, one at the end."""
    from medssl.data.formats import READERS, REASONS, Item, Reject
    from medssl.data.formats.options import ReadOptions

    reader, folder, seed, first, last = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
    sources = sorted(path for path in folder.iterdir() if path.is_file())
    work = folder / f"damaged{seed}"
    work.mkdir(exist_ok=True)
    outcomes: dict[str, int] = {}
    for number in range(first, last):
        print(number, flush=True)
        generator = np.random.default_rng([seed, number])
        source = sources[number % len(sources)]
        path = work / f"x{''.join(source.suffixes[-2:])}"
        path.write_bytes(mutate(source.read_bytes(), generator))
        options = ReadOptions(channels=str(generator.choice(["grey", "rgb"])))
        for found in READERS[reader].read(work, Item(path.name), (), options):
            outcome = found.reason if isinstance(found, Reject) else "read"
            assert outcome == "read" or outcome in REASONS
            assert outcome != "unreadable", f"{source.name}: {found}"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    kilobytes = int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])
    print(json.dumps({"outcomes": outcomes, "bytes": kilobytes * 1024}), flush=True)


if __name__ == "__main__":
    main()
