"""Success rates that others have published, with their source on every row."""

from __future__ import annotations

from importlib.resources import files

import polars as pl

from bench.suites import SUITES

__all__ = ["published_beside", "published_domains", "same_method"]

_SUITE_OF = {
    "QAM, arXiv 2601.14234": "ogbench50-qam",
    "TRQAM, arXiv 2605.27079": "ogbench50",
}
"""Suite that has the protocol of a source."""

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


def published_beside(domains: pl.DataFrame, phase: str) -> pl.DataFrame:
    """Published rates of the methods and domains that we ran, where they can be compared.

    That is: ours are by the very protocol that the source measured under, over all tasks of the
    domain; the domain `all` needs all ten.

    Args:
        domains: rows of `FinalTable.domains`.
        phase: of the published numbers.

    Returns:
        Columns `suite`, `domain`, `agent` (ours), `label` (method and source), `mean` and `std` in
        percent, a row per published number; sorted by method and source.
    """
    ours = domains.filter(
        pl.col("suite").is_in(list(_SUITE_OF.values()))
        & (pl.col("off_protocol") == "")
        & (pl.col("phase") == phase)
    )
    theirs = published_domains().filter(phase=phase)
    rows = []
    for suite, domain, agent, tasks in (
        ours.select("suite", "domain", "agent", "tasks").unique().sort(pl.all()).iter_rows()
    ):
        known = SUITES[suite].domains
        whole = sum(len(one.tasks) for one in known if domain in (one.name, "all"))
        for row in theirs.filter(domain=domain).iter_rows(named=True):
            measured_so = _SUITE_OF[row["source"]] == suite
            if measured_so and tasks == whole and same_method(agent, row["method"]):
                label = f"{row['method']} (published: {row['source']})"
                rows.append((suite, domain, agent, label, row["mean"], row["std"]))
    columns = dict.fromkeys(("suite", "domain", "agent", "label"), pl.String)
    return pl.DataFrame(
        rows, schema=columns | {"mean": pl.Float64, "std": pl.Float64}, orient="row"
    ).sort("label", maintain_order=True)


def same_method(agent: str, method: str) -> bool:
    """Whether our agent name and a published method name mean the same method."""

    def plain(name: str) -> str:
        return name.casefold().replace("_", "-")

    return plain(agent) == plain(method)
