"""Result tables prove every bit of themselves, and nothing in them is taken on trust."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from bench.errors import BenchError, ResultsError
from bench.results import (
    EVALUATIONS,
    TRAINING,
    ResultWriter,
    TableSchema,
    final_table,
    metric_rows,
    scan_evaluations,
    scan_training,
)

from .make_runs import cell, evaluation, make_run

DATA = Path(__file__).parent / "data"


def written(directory: Path, schema: TableSchema) -> Path:
    path = directory / "packs" / "p" / f"{schema.name}.parquet"
    rows: list[dict[str, Any]] = [evaluation(cell(), step, 2) for step in range(0, 100, 10)]
    if schema is TRAINING:
        rows = [row for s in range(9) for row in metric_rows(cell(), "offline", s, {"loss": s / 3})]
    ResultWriter(path, schema).append(rows)
    return path


@pytest.mark.parametrize("schema", [EVALUATIONS, TRAINING])
def test_every_flipped_bit_of_a_table_is_found(tmp_path: Path, schema: TableSchema) -> None:
    path = written(tmp_path, schema)
    content = path.read_bytes()
    scan = scan_evaluations if schema is EVALUATIONS else scan_training
    assert scan([tmp_path]).collect().height > 8
    source = random.Random(0)
    bits = 8 * len(content)
    frame = content.rindex(b"sha256 of this table"), content.rindex(b"digits as zeros)") + 16
    places = {source.randrange(bits) for _ in range(300)}
    places |= {source.randrange(8 * frame[0], 8 * frame[1]) for _ in range(300)}
    for place in places:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(ResultsError, match=rf"{schema.name}\.parquet is damaged.*put a copy"):
            scan([tmp_path])
    path.write_bytes(damaged)
    with pytest.raises(ResultsError, match="is damaged"):
        ResultWriter(path, schema)
    path.write_bytes(content)
    assert scan([tmp_path]).collect().height > 8


def test_a_damaged_table_without_a_sum_never_makes_a_panic_or_an_impossible_count(
    tmp_path: Path,
) -> None:
    """Tables of version 0.1 have none: what can be noticed is, in the same words."""
    sealed = written(tmp_path, EVALUATIONS)
    frame = pl.read_parquet(sealed)
    frame.write_parquet(sealed, compression="zstd")
    content = sealed.read_bytes()
    assert scan_evaluations([tmp_path]).collect().drop("run").equals(frame)
    source = random.Random(1)
    refusals = []
    for _ in range(300):
        damaged = bytearray(content)
        place = source.randrange(8 * len(content))
        damaged[place // 8] ^= 1 << (place % 8)
        sealed.write_bytes(damaged)
        try:
            found = scan_evaluations([tmp_path]).collect()
        except BenchError as error:
            refusals.append(str(error))
            continue
        assert (found["successes"] <= found["episodes"]).all()
    assert len(refusals) > 100
    assert all("evaluations.parquet" in text for text in refusals)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("suite", "../../outside"),
        ("domain", "/etc"),
        ("task", "a/../../b"),
        ("agent", "\x1b[31mqam"),
        ("variant", "../x"),
        ("variant", "a=1\n"),
        ("phase", "later"),
        ("successes", 99),
        ("success_rate", 0.9),
        ("step", -1),
    ],
)
def test_a_table_that_no_run_writes_is_refused(tmp_path: Path, column: str, value: object) -> None:
    run = make_run(tmp_path, [(cell(), {100: 20})])
    path = run / "packs" / "pack" / "evaluations.parquet"
    frame = pl.read_parquet(path).with_columns(
        pl.lit(value).cast(EVALUATIONS.columns[column]).alias(column)
    )
    frame.write_parquet(path)
    with pytest.raises(ResultsError, match=r"evaluations\.parquet"):
        final_table([run])


def test_what_a_table_says_never_acts_on_a_terminal(tmp_path: Path) -> None:
    run = make_run(tmp_path, [(cell(), {50: 20})])
    writer = ResultWriter(run / "packs" / "pack" / "evaluations.parquet")
    reason = "bad\x1b]0;owned\x07\u202e"
    writer.append(
        [cell() | {"phase": "offline", "step": 60, "failed_at_step": 60, "failure": reason}]
    )
    (line,) = final_table([run]).coverage.failed
    assert line.isprintable()
    assert r"bad\x1b]0;owned\x07\u202e" in line


def test_a_table_is_not_replaced_where_somebody_took_it_away(tmp_path: Path) -> None:
    path = written(tmp_path, EVALUATIONS)
    writer = ResultWriter(path)
    writer.append([evaluation(cell(), 100, 2)])
    path.unlink()
    with pytest.raises(ResultsError, match="was deleted while this process trains"):
        writer.append([evaluation(cell(), 110, 2)])
    assert not path.exists()
    written(tmp_path, EVALUATIONS)
    with pytest.raises(ResultsError, match="was changed by somebody else"):
        writer.flush()
