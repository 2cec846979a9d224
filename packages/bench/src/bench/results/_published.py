"""Success rates that others have published, with their source on every row."""

from __future__ import annotations

from importlib.resources import files

import polars as pl

__all__ = ["published_domains", "same_method"]

_SCHEMA = {
    "domain": pl.String(),
    "method": pl.String(),
    "phase": pl.String(),
    "mean": pl.Float64(),
    "std": pl.Float64(),
    "seeds": pl.Int64(),
    "source": pl.String(),
}


def published_domains() -> pl.DataFrame:
    """Published success rates per domain, in percent.

    Means and standard deviations over seeds from the result tables of QAM (arXiv 2601.14234), and
    the overall means that TRQAM (arXiv 2605.27079) states for its own protocol, which differs
    (`docs/results.md`). The domain `all` is the mean over the ten domains.

    Returns:
        Columns `domain`, `method`, `phase`, `mean`, `std`, `seeds`, `source`; `std` and `seeds`
        are null where the source does not give them.
    """
    content = (files("bench.results") / "published.csv").read_bytes()
    return pl.read_csv(content, schema=_SCHEMA)


def same_method(agent: str, method: str) -> bool:
    """Whether our agent name and a published method name mean the same method."""

    def plain(name: str) -> str:
        return name.casefold().replace("_", "-")

    return plain(agent) == plain(method)
