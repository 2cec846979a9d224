"""One HTML file that needs nothing else: tables, inlined SVG, provenance."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import polars as pl

from bench.errors import ResultsError
from bench.results._final import FinalTable
from bench.results._scores import flat_settings
from bench.storage import read_run, run_directories

__all__ = ["Picture", "Section", "html_page"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure of the page.

    Attributes:
        name: file name without suffix.
        caption: what it shows and what its bands are.
        svg: the drawing.
    """

    name: str
    caption: str
    svg: str


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with a table or a picture under it."""

    title: str
    text: str = ""
    view: pl.DataFrame | None = None
    picture: Picture | None = None


def html_page(
    table: FinalTable, sections: Sequence[Section], runs: Sequence[Path], made_at: str
) -> str:
    """The report as one self-contained HTML page.

    Args:
        table: for the heading, the notes and what is missing.
        sections: body, in order.
        runs: run directories whose provenance is listed.
        made_at: time stamp.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = (files("bench.results.report") / "page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        table=table,
        sections=sections,
        inlined=inlined,
        is_text=lambda column: column in ("task", "phase", "method", "domain", "pair", "says"),
        provenance=[_described(run) for run in _directories(runs)],
        made_at=made_at,
    )


def inlined(picture: Picture) -> str:
    """The `<svg>` element with its ids made unique on the page, and a name for screen readers."""
    element = picture.svg[picture.svg.index("<svg") :]
    prefix = f"{picture.name}-"
    element = re.sub(r'\bid="', f'id="{prefix}', element)
    element = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", element)
    # The size in points would keep it from shrinking on a narrow screen.
    element = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", element, count=1)
    width = re.search(r'<svg[^>]*? width="([0-9.]+)pt"', element)
    limit = f' style="max-width: {float(width[1]) * 1.25:.0f}px"' if width else ""
    element = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", element, count=1)
    return element.replace("<svg", f'<svg role="img" aria-labelledby="{prefix}caption"{limit}', 1)


def _directories(runs: Sequence[Path]) -> list[Path]:
    try:
        return run_directories([run for run in runs if run.is_dir()])
    except ResultsError:
        return []  # tables given by themselves have no provenance


def _described(directory: Path) -> dict[str, Any]:
    record = read_run(directory)
    return {
        "name": str(directory),
        "command": record.command,
        "settings": flat_settings(record.settings),
        "facts": flat_settings({k: v for k, v in record.provenance.items() if k != "command"}),
    }
