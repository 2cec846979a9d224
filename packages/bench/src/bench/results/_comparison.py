"""Two runs side by side: which settings differ, and whether the difference in success holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import ResultsError
from bench.experiment import CLONING, Phase, is_cloning
from bench.results._cells import COUNTED
from bench.results._final import FinalTable, final_table
from bench.results._scores import final_rates, flat_settings, method_label
from bench.results._setting_names import method_pairs, setting_differences
from bench.results._statistics import (
    Interval,
    bootstrap_interval,
    holm_p_values,
    permutation_p_value,
    probability_of_improvement,
)
from bench.storage import read_run

__all__ = ["Comparison", "MethodDifference", "compare_runs"]

_LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class MethodDifference:
    """Success of A minus success of B for one method pair in one phase, over the shared tasks.

    Attributes:
        first: method of A.
        second: method of B.
        tasks: shared tasks with finished runs on both sides.
        runs: finished runs of A and of B on them.
        success: of A and of B, fractions.
        difference: with the 95 % interval of a bootstrap over seeds (None with one seed a side).
        p_value: two-sided permutation test over seeds within tasks.
        improvement: probability that a run of A beats a run of B on a shared task.
        one_seed: whether a side has a single run of some task, so that nothing is tested.
        tests: how many pairs of the comparison are tested.
        p_corrected: `p_value` by Holm for that many.
    """

    phase: str
    first: str
    second: str
    tasks: int
    runs: tuple[int, int]
    success: tuple[float, float]
    difference: Interval
    p_value: float
    improvement: float
    one_seed: bool
    tests: int = 1
    p_corrected: float = 1.0

    @property
    def name(self) -> str:
        """Methods and phase."""
        pair = self.first if self.first == self.second else f"{self.first} against {self.second}"
        return f"{pair} ({self.phase})"

    @property
    def better(self) -> str | None:
        """`A` or `B` if the seeds support it, `neither` if they do not, None if untested."""
        if self.one_seed:
            return None
        if self.p_corrected >= _LEVEL:
            return "neither"
        return "A" if self.difference.value > 0 else "B"

    @property
    def verdict(self) -> str:
        """One sentence: which is better, whether significantly, and by which test."""
        points = 100 * self.difference.value
        if self.one_seed:
            return (
                f"No claim can be made with {self.name}: {points:+.1f} points for A, but one seed "
                "a side on some task; run more seeds"
            )
        ends = f"[{100 * self.difference.low:+.1f}, {100 * self.difference.high:+.1f}]"
        gap = f"{points:+.1f} points for A, 95 % {ends}"
        test = f"p = {self.p_corrected:.2g}, permutation test over seeds within tasks"
        if self.tests > 1:
            test += f", corrected by Holm for {self.tests} comparisons"
        if self.better == "neither":
            return (
                f"Neither is shown to be better with {self.name}: {gap}, not significant ({test})"
            )
        return f"{self.better} is better with {self.name}: {gap}, significant ({test})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two runs.

    Attributes:
        settings: option to the value in A and in B, differing ones only.
        environment: the same for provenance (packages, commit, hardware, simulator).
        methods: differences in success, at least one.
        notes: notes of both tables, prefixed by their run, and what was not compared.
        failed: cells of either run that failed, prefixed by their run.
    """

    settings: dict[str, tuple[str, str]]
    environment: dict[str, tuple[str, str]]
    methods: list[MethodDifference]
    notes: list[str]
    failed: list[str]

    @property
    def verdict(self) -> str:
        """One sentence about all of it; it says so if only cloned policies are compared."""
        only = "Only cloned policies are compared. " if self._only_clones else ""
        return only + self._sentence

    @property
    def _only_clones(self) -> bool:
        return all(method.first == method.second == CLONING for method in self.methods)

    @property
    def _sentence(self) -> str:
        if len(self.methods) == 1:
            return self.methods[0].verdict
        parts = [
            f"{says} with {', '.join(names)}"
            for better, says in (
                ("A", "A is better"),
                ("B", "B is better"),
                ("neither", "neither is shown to be better"),
                (None, "no claim can be made from one seed"),
            )
            if (names := [method.name for method in self.methods if method.better == better])
        ]
        sentence = "; ".join(parts)
        tests = self.methods[0].tests
        test = "permutation tests over seeds within tasks"
        if tests > 1:
            test += f", p corrected by Holm for {tests} comparisons"
        return sentence[0].upper() + sentence[1:] + (f" ({test})" if tests else "")


def compare_runs(first: Path, second: Path, *, mix: bool = False) -> Comparison:
    """Compares two run directories.

    Methods of the same name are compared with each other; if both runs hold a single method, these
    two are compared whatever their names. Cloned policies are compared if there is nothing else.
    Methods that stay without a partner are noted.

    Args:
        first: run A.
        second: run B.
        mix: as for `final_table`.

    Raises:
        ResultsError: one is no run, or they share no finished task.
    """
    records = read_run(first), read_run(second)
    tables = final_table([first], mix=mix), final_table([second], mix=mix)
    methods = _method_differences(*tables)
    if not methods:
        raise ResultsError(
            f"{first} and {second} have no finished runs of a common method and task to compare"
        )
    environments = [_environment(record.provenance) for record in records]
    notes = _not_compared(tables, methods) + _labelled(*(table.notes for table in tables))
    origins = [set(table.tasks["data_source"].drop_nulls()) for table in tables]
    if origins[0] != origins[1]:
        notes.append(f"trained on different data: {_joined(origins[0])} and {_joined(origins[1])}")
    settings, recorded_once = setting_differences(*records)
    notes += [
        f"recorded by {label} only, so not compared: {'; '.join(names)}"
        for label, names in zip("AB", recorded_once, strict=True)
        if names
    ]
    return Comparison(
        settings,
        _differences(environments[0], environments[1]),
        methods,
        notes,
        _labelled(*(table.coverage.failed for table in tables)),
    )


def _environment(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What a process ran in, without what differs between any two and what rows say better."""
    unlike = ("recorded_at", "command", "data")
    data = {name: origin["fingerprint"] for name, origin in provenance.get("data", {}).items()}
    return {k: v for k, v in provenance.items() if k not in unlike} | {"data": data}


def _method_differences(first: FinalTable, second: FinalTable) -> list[MethodDifference]:
    ours, theirs = _rates(first), _rates(second)
    found = []
    for phase in ours:
        for one, other in method_pairs(ours[phase], theirs.get(phase, {})):
            difference = _difference(phase, one, other, ours[phase][one], theirs[phase][other])
            if difference is not None:
                found.append(difference)
    found = [method for method in found if method.phase != Phase.PRETRAIN] or found
    tested = [method for method in found if not method.one_seed]
    corrected = iter(holm_p_values([method.p_value for method in tested]))
    return [
        replace(
            method,
            tests=len(tested),
            p_corrected=method.p_value if method.one_seed else next(corrected),
        )
        for method in found
    ]


def _not_compared(
    tables: tuple[FinalTable, FinalTable], methods: Sequence[MethodDifference]
) -> list[str]:
    """A note of the methods that are in no difference, the cloned policies aside."""
    compared = {method.first for method in methods}, {method.second for method in methods}
    left = [
        sorted(
            {
                method_label(agent, variant)
                for agent, variant in table.cells.select("agent", "variant").iter_rows()
                if not is_cloning(agent)
            }
            - paired
        )
        for table, paired in zip(tables, compared, strict=True)
    ]
    parts = [
        f"{label} has {', '.join(names)}" for label, names in zip("AB", left, strict=True) if names
    ]
    if not parts:
        return []
    return [
        f"not compared: {', '.join(parts)}; methods need the same name, or to be the only one of "
        "their run, and finished runs of a task of both (`bench report A B` has all pairs)"
    ]


def _labelled(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Notes with the run that they are about, those about both once."""
    return [
        f"{'A and B' if note in first and note in second else 'A' if note in first else 'B'}: "
        f"{note}"
        for note in dict.fromkeys((*first, *second))
    ]


def _difference(
    phase: str,
    one: str,
    other: str,
    ours: Mapping[str, list[float]],
    theirs: Mapping[str, list[float]],
) -> MethodDifference | None:
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        return None
    a, b = [ours[task] for task in shared], [theirs[task] for task in shared]

    def gap(drawn: Any) -> Any:
        halves = drawn[: len(shared)], drawn[len(shared) :]
        means = [np.mean([task.mean(axis=-1) for task in half], axis=0) for half in halves]
        return means[0] - means[1]

    return MethodDifference(
        phase,
        one,
        other,
        len(shared),
        (sum(map(len, a)), sum(map(len, b))),
        (float(np.mean([np.mean(x) for x in a])), float(np.mean([np.mean(x) for x in b]))),
        bootstrap_interval([*a, *b], gap, resamples=20_000),
        permutation_p_value(a, b),
        probability_of_improvement(a, b),
        one_seed=min(map(len, [*a, *b])) == 1,
    )


def _rates(table: FinalTable) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Phase to method to task to success rates of finished runs."""
    finished = table.cells.filter(COUNTED)
    phases = finished.partition_by("phase", as_dict=True, maintain_order=True)
    return {str(phase): final_rates(cells) for (phase,), cells in phases.items()}


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    ours, theirs = flat_settings(first), flat_settings(second)
    return {
        name: (ours.get(name, "not set"), theirs.get(name, "not set"))
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    }


def _joined(values: set[str]) -> str:
    return " and ".join(sorted(values)) or "unknown"
