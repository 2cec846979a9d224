"""`bench export`: a trained policy as a `torch.export` program and an ONNX graph."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from bench.experiment import PhaseName

__all__ = ["Export"]


@dataclass(frozen=True)
class Export:
    """Write the policy of one run for use without this package (docs/own-data.md).

    Observations go in as the environment gives them, noise is an input, actions come out as the
    environment takes them; policy.json says how to call it. What is written is compared with the
    agent.

    Attributes:
        run_directory: of `bench offline` or `bench online`.
        agent: whose policy; needed where the run has several.
        task: its name, or its end such as task2-v0, task2 or 2 (1 is that of own data); needed
            where the run has several.
        seed: needed where the run has several.
        variant: swept settings as the tables name them; needed after `bench sweep`.
        phase: pretrain, offline or online; the last one by default.
        formats: pt2 (torch.export), onnx (needs trqam-bench[export]).
        out: folder for the files; export/... in the run directory by default.
    """

    run_directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    agent: str | None = None
    task: str | None = None
    seed: int | None = None
    variant: str | None = None
    phase: PhaseName | None = None
    formats: tuple[Literal["pt2", "onnx"], ...] = ("pt2", "onnx")
    out: Path | None = None

    def run(self) -> int:
        """Find the policy, write it, and say how near it comes to the agent."""
        from bench.api.policies import export_policy

        done = export_policy(
            self.run_directory,
            agent=self.agent,
            task=self.task,
            seed=self.seed,
            variant=self.variant,
            phase=self.phase,
            formats=self.formats,
            out=self.out,
        )
        print(f"{done.policy.cell}, {done.policy.phase} step {done.policy.step:,}")
        for kind, difference in done.differences.items():
            others = done.other_choices[kind]
            note = f"; another of its candidates in {others} of 65 cases" if others else ""
            print(
                f"{done.files[kind]}: {done.files[kind].stat().st_size / 1e6:.2f} MB, actions "
                f"within {difference:.1e} of the agent's{note}"
            )
        print(f"{done.files['json']}: inputs, output and how to call them")
        return 0
