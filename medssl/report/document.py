"""A whole page: one file that needs no network and no script."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

from medssl.report import html


def document(title: str, body: Iterable[str], styles: Iterable[str] = ("page.css",)) -> str:
    """An HTML document of `body`, parts that are HTML already. `styles` are files of this package, later ones weigh more."""
    style = "\n".join(resources.files("medssl.report").joinpath(name).read_text(encoding="utf-8") for name in styles)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.text(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body>\n</html>\n"
    )
