"""Tiles of whole-slide images: scanners' formats by OpenSlide, DICOM whole-slide images, and small slides in plain files."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.data.formats.finding import find_files, resolve_inside
from medssl.data.formats.guard import guarded, quiet
from medssl.data.formats.items import Header, Image, Item, RefusedError, Reject, Volume
from medssl.data.formats.options import ReadOptions, SlideOptions
from medssl.data.formats.raster import MAGIC, SUFFIXES
from medssl.errors import CardError

if TYPE_CHECKING:
    import numpy as np

    from medssl.data.formats.slide_source import Slide

BLOCK = 256
"""Tiles of one item."""
_SCANNED = (".svs", ".ndpi", ".mrxs", ".vms", ".vmu", ".scn", ".bif", ".svslide", ".czi")


class SlideReader:
    """Slides in blocks of `BLOCK` tiles of a grid that begins at the slide's upper left corner.

    Tiles without enough tissue give nothing. `Header.frame` is the tile's number on the full grid, row by row, and
    `Header.series_uid` the slide's path, so that the tiles of one slide have one key.
    """

    name = "slide"

    def find(
        self, root: Path, include: Sequence[str] = (), exclude: Sequence[str] = (), options: ReadOptions = ReadOptions()
    ) -> list[Item | Reject]:
        """Blocks of tiles of every slide, by its size alone; see `Reader.find`.

        The files of a DICOM series that hold one slide at several resolutions are one slide, named by the finest; its item has
        all of them as `members`, the finest first.

        Raises:
            CardError: openslide is not installed.
        """
        _require_openslide()
        found: list[Item | Reject] = []
        with quiet():
            for item in _slides(Path(root), find_files(root, include, exclude)):
                found += [item] if isinstance(item, Reject) else _blocks(Path(root), item, options.slide)
        return sorted(
            found, key=lambda one: (one.item.path, one.item.start) if isinstance(one, Reject) else (one.path, one.start)
        )

    def read(
        self, root: Path, item: Item, tags: Sequence[str] = (), options: ReadOptions = ReadOptions()
    ) -> Iterator[Image | Volume | Reject]:
        """The tiles of a block with at least the card's share of tissue, in order; see `Reader.read`. `tags` is ignored.

        A slide none of whose tiles has enough gives one reject, "no_tissue", with its first block.

        Raises:
            CardError: openslide is not installed.
        """
        _require_openslide()
        return guarded(item, lambda: _read_tiles(Path(root), item, options))


def _require_openslide() -> None:
    try:
        import openslide  # noqa: F401
    except ImportError as error:  # the bindings are there without the library, or neither
        raise CardError("format slide needs openslide: pip install 'medssl[slides]'") from error


def _slides(root: Path, paths: list[str]) -> Iterator[Item | Reject]:
    """An item for each slide, whole, and a reject for each DICOM file that is none."""
    from medssl.data.formats.slide_dicom import Level, level_of

    levels: list[tuple[str, Level]] = []
    for path in paths:
        kind = _kind(root, path)
        if kind == "dicom":
            try:
                with resolve_inside(root, path).open("rb") as file:
                    levels.append((path, level_of(file)))
            except (RefusedError, OSError) as error:
                why = (error.reason, error.detail) if isinstance(error, RefusedError) else ("unreadable", type(error).__name__)
                yield Reject(Item(path), *why)
        elif kind:
            yield Item(path)
    levels.sort(key=lambda one: (-one[1].width * one[1].height, one[0]))
    while levels:
        path, base = levels.pop(0)
        coarser = [one for one in levels if one[1].is_coarser(base)]
        levels = [one for one in levels if one not in coarser]
        yield Item(path, members=(path, *(one[0] for one in coarser)) if coarser else ())


def _kind(root: Path, path: str) -> str | None:
    """ "dicom", "scanned" or "plain"; None: not a candidate. A file that cannot be opened is one, so that reading it says why."""
    from medssl.data.formats.slide_openslide import vendor_of

    try:
        real = resolve_inside(root, path)
        with real.open("rb") as file:
            head = file.read(132)
    except (RefusedError, OSError):
        return "plain"
    if head[128:] == b"DICM":
        return "dicom"
    if vendor_of(real) is not None:
        return "scanned"
    return "plain" if head.startswith(MAGIC) or path.lower().endswith(SUFFIXES + _SCANNED) else None


def _blocks(root: Path, item: Item, options: SlideOptions) -> list[Item]:
    try:
        with ExitStack() as files:
            from medssl.data.formats.slide_grid import grid_of

            count = grid_of(_open(root, item, files), options).count
    except Exception:  # whatever it is, reading the item says so by name
        return [item]
    return [replace(item, start=start, stop=min(start + BLOCK, count)) for start in range(0, count, BLOCK)]


def _open(root: Path, item: Item, files: ExitStack) -> Slide:
    """The slide of an item; what is opened for it is closed with `files`."""
    from medssl.data.formats.slide_openslide import open_scanned, vendor_of

    real = resolve_inside(root, item.path)
    kind = _kind(root, item.path)
    if kind == "scanned":
        slide = open_scanned(real, vendor_of(real) or "")
        files.callback(slide.handle.close)
        return slide
    opened = [files.enter_context(resolve_inside(root, path).open("rb")) for path in item.members or (item.path,)]
    if kind == "dicom":
        from medssl.data.formats.slide_dicom import open_wsi

        return open_wsi(opened)
    from medssl.data.formats.slide_tiff import open_plain

    if not opened[0].read(8).startswith(MAGIC):
        raise RefusedError("not_slide")
    return open_plain(opened[0])


class _OpenedSlide:
    """A slide that is open for its blocks, with its grid and the tiles that are kept."""

    def __init__(self, root: Path, item: Item, options: SlideOptions) -> None:
        import numpy as np

        from medssl.data.formats.slide_grid import grid_of, tissue_shares

        self.refusal: RefusedError | None = None
        self._files = ExitStack()
        try:
            self.slide = _open(root, item, self._files)
            self.grid = grid_of(self.slide, options)
            shares = tissue_shares(self.slide, self.grid) if options.tissue > 0 else np.ones((self.grid.rows, self.grid.columns))
            self.kept: np.ndarray = (shares >= options.tissue).ravel()
        except RefusedError as refusal:  # kept too: finding out again for each block would cost the same again
            self.refusal = refusal
            self._files.close()


# The blocks of a slide come one after another in each process, and the mask is computed once for all of them.
@functools.lru_cache(maxsize=1)
def _opened(root: Path, item: Item, options: SlideOptions, state: tuple[tuple[int, int], ...]) -> _OpenedSlide:
    """`state` tells files that have changed."""
    return _OpenedSlide(root, item, options)


def _read_tiles(root: Path, item: Item, options: ReadOptions) -> Iterator[Image | Reject]:
    from medssl.data.formats.slide_grid import read_tile

    status = [resolve_inside(root, path).stat() for path in item.members or (item.path,)]
    whole = replace(item, start=0, stop=1)
    opened = _opened(root, whole, options.slide, tuple((one.st_mtime_ns, one.st_size) for one in status))
    if opened.refusal is not None:
        raise opened.refusal
    if not opened.kept.any():
        if item.start == 0:
            raise RefusedError("no_tissue", f"{opened.grid.count} tiles, none with {options.slide.tissue:g} of tissue")
        return
    for number in range(item.start, min(item.stop, opened.grid.count)):
        if opened.kept[number]:
            row, column = divmod(number, opened.grid.columns)
            yield _tile(read_tile(opened.slide, opened.grid, row, column), opened, item.path, number, options.channels)


def _tile(pixels: np.ndarray, opened: _OpenedSlide, path: str, number: int, channels: str) -> Image | Reject:
    from medssl.data.formats.raster_pixels import grey_of, is_constant

    if is_constant(pixels):
        return Reject(Item(path, number, number + 1), "constant")
    try:
        shown = grey_of(pixels) if channels == "grey" else pixels
    except RefusedError as refusal:
        return Reject(Item(path, number, number + 1), refusal.reason, refusal.detail)
    slide = opened.slide
    return Image(
        pixels=shown, full_range=(0.0, 255.0), header=_header(opened, path, number), syntax=slide.syntax, decoder=slide.decoder
    )


def _header(opened: _OpenedSlide, path: str, number: int) -> Header:
    grid = opened.grid
    row, column = divmod(number, grid.columns)
    left, top, _, _ = grid.box(row, column)
    return replace(
        opened.slide.header,
        frame=number,
        series_uid=path,
        spacing=(grid.mpp[1] / 1000, grid.mpp[0] / 1000) if grid.mpp else None,
        spacing_kind="pixel" if grid.mpp else None,
        position=None,
        orientation=None,
        tile=(round(left), round(top), row, column),
        tile_mpp=sum(grid.mpp) / 2 if grid.mpp else None,
        tags={},
    )
