"""Listing the files of a data set: globs, hidden names and links, in an order that is the same on every machine."""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from medssl.data.formats.items import RefusedError
from medssl.errors import DataError


def find_files(root: Path, include: Sequence[str] = (), exclude: Sequence[str] = (), *, archives: bool = False) -> list[str]:
    """Paths of the files under `root`, relative to it, with "/", sorted.

    A file is listed when one of `include` (empty: all) and none of `exclude` matches its relative path. Globs are those
    of pathlib's `full_match`: `*`, `?` and `[...]` stay inside one folder's name, `**` stands for any number of folders, and case matters.
    Names that begin with "." are skipped, folders included. Links to folders are not entered; those that lead out of
    `root`, and folders that cannot be listed, are listed themselves, so that reading them gives a reject that can be seen.

    Args:
        archives: list the members of files named .zip and .tar, as `exam.zip!/folder/member`, in place of the archive; globs
            see the archive as a folder of the name `exam.zip!`.

    Raises:
        DataError: `root` is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError("root: is not a folder that can be read; correct `root` of this source in the study file")
    included = [_translate(pattern) for pattern in include or ("**/*",)]
    excluded = [_translate(pattern) for pattern in exclude]
    found: list[str] = []
    unlisted: list[str] = []
    real_root = root.resolve()

    def unlistable(error: OSError) -> None:
        unlisted.append(Path(error.filename).relative_to(root).as_posix())

    for folder, folders, names in os.walk(root, onerror=unlistable, followlinks=False):
        here = Path(folder)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            link = here / name
            if link.is_symlink() and not link.resolve().is_relative_to(real_root):
                unlisted.append(link.relative_to(root).as_posix())
        for name in names:
            path = here / name
            # Pipes and devices are passed over: opening one may wait for ever.
            if not name.startswith(".") and (path.is_symlink() or path.is_file()):
                found.append(path.relative_to(root).as_posix())
    if archives:
        found = [member for path in found for member in _within(root, path)]
    chosen = [path for path in found if any(glob.fullmatch(path) for glob in included)]
    return sorted(path for path in chosen + unlisted if not any(glob.fullmatch(path) for glob in excluded))


def _within(root: Path, path: str) -> list[str]:
    from medssl.data.formats.opening import ARCHIVES, members_of

    return members_of(root, path) if path.lower().endswith(ARCHIVES) else [path]


def resolve_inside(root: Path, path: str) -> Path:
    """The real path of the regular file at `path` under `root`.

    Raises:
        RefusedError: "outside_root" or "unreadable".
    """
    inside = _real(str(root))
    real = os.path.realpath(os.path.join(inside, path))  # noqa: PTH118 - pathlib's joins are felt at a thousand files a second
    if not real.startswith(inside if inside.endswith(os.sep) else inside + os.sep):
        raise RefusedError("outside_root")
    try:
        mode = os.stat(real).st_mode  # noqa: PTH116
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise RefusedError("unreadable", "no such file, or a link to nothing") from error
        raise
    if not stat.S_ISREG(mode):
        raise RefusedError("unreadable", "not a regular file")
    return Path(real)


@functools.lru_cache(maxsize=16)
def _real(root: str) -> str:
    return os.path.realpath(root)


def _translate(pattern: str) -> re.Pattern[str]:
    parts = pattern.split("/")
    expression = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            expression += ".*" if last else "(?:[^/]+/)*"
        else:
            expression += _translate_name(part) + ("" if last else "/")
    return re.compile(expression, re.DOTALL)


def _translate_name(part: str) -> str:
    expression = ""
    position = 0
    while position < len(part):
        character = part[position]
        # A class holds at least one character, so "[]]" is the class of "]".
        close = part.find("]", position + (3 if part[position + 1 : position + 2] == "!" else 2))
        if character == "*":
            expression += "[^/]*"
        elif character == "?":
            expression += "[^/]"
        elif character == "[" and close > 0:
            negated = part[position + 1] == "!"
            members = re.sub(r"([\\\[^])", r"\\\1", part[position + 1 + negated : close])
            expression += f"[^/{members}]" if negated else f"[{members}]"
            position = close
        else:
            expression += re.escape(character)
        position += 1
    return expression
