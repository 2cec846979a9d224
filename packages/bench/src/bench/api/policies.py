"""Trained policies: to act with, to take elsewhere, to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.api.state import process_state_kept
from bench.drawing import require_encoder
from bench.experiment import PhaseName
from bench.export import Exported
from bench.export import export_policy as write_policy
from bench.policies import LoadedPolicy, TrainedPolicy, find_policy
from bench.simulation import SimulatorPool
from bench.training.own_policy import OwnModule
from bench.video import SelectedCell, play, record, select_cells

__all__ = ["RecordedVideo", "export_policy", "load_policy", "record_video"]


def load_policy(
    run: str | Path,
    *,
    task: int | str | None = None,
    agent: str | None = None,
    seed: int | None = None,
    variant: str | None = None,
    phase: PhaseName | None = None,
    policy: OwnModule | None = None,
    critic: OwnModule | None = None,
    noise_seed: int = 0,
    device: str = "cpu",
) -> LoadedPolicy:
    """The trained policy of a run, as a function from observations to chunks of actions.

    Of the run's policies the arguments must single out one; the newest checkpoint of the last phase
    is taken, and the cloned policy (agent `bc`) only when asked for.

    Args:
        run: run directory.
        task: number or name of the task.
        agent: name of the agent.
        seed: of the run.
        variant: swept settings, as the tables name them.
        phase: `pretrain`, `offline` or `online`.
        policy: where the run fine-tuned a policy of your own, a module like it, a function that
            makes one, or `module:function`; its parameters are replaced by the trained ones.
        critic: likewise, where the run had a critic of your own.
        noise_seed: of the noise that the policy acts with.
        device: where it acts.

    Raises:
        ValueError: no policy or several fit; the choices are listed.
        ResultsError: the directory is no run, or its files cannot be read.
        CheckpointError: there is no checkpoint yet.
    """
    trained = _found(
        run,
        task,
        agent=agent,
        seed=seed,
        variant=variant,
        phase=phase,
        policy=policy,
        critic=critic,
    )
    return LoadedPolicy(trained, noise_seed=noise_seed, device=device)


def export_policy(
    run: str | Path,
    *,
    task: int | str | None = None,
    agent: str | None = None,
    seed: int | None = None,
    variant: str | None = None,
    phase: PhaseName | None = None,
    formats: Sequence[Literal["pt2", "onnx"]] = ("pt2", "onnx"),
    out: str | Path | None = None,
) -> Exported:
    """Write the policy of one run for use without this package, and compare it with the agent.

    Args:
        run: run directory.
        task: as in :func:`load_policy`, like the next four.
        agent: name of the agent.
        seed: of the run.
        variant: swept settings, as the tables name them.
        phase: `pretrain`, `offline` or `online`.
        formats: `pt2` (torch.export), `onnx` (needs trqam-bench[export]).
        out: folder for the files; `export/...` in the run directory by default.

    Raises:
        ValueError: as :func:`load_policy`, or the agent cannot be exported.
        BenchError: a written program does not give the agent's actions, or as :func:`load_policy`.
        OSError: a file cannot be written.
    """
    if not formats:
        raise ValueError("formats is empty; give pt2, onnx or both")
    trained = _found(run, task, agent=agent, seed=seed, variant=variant, phase=phase)
    cell = trained.cell
    parts = [cell.task_name, cell.agent, trained.variant, f"seed-{cell.seed}", trained.phase]
    name = "--".join(part.replace("/", "-") for part in parts if part)
    folder = Path(run) / "export" / name if out is None else Path(out)
    return write_policy(trained, folder, formats)


@dataclass(frozen=True, slots=True)
class RecordedVideo:
    """A file of one run's episodes.

    Attributes:
        file: the video.
        cell: whose policy plays.
        step: of the checkpoint, within its phase.
        solved: episodes of the whole evaluation that ended in success.
        renderer: what drew it.
    """

    file: Path
    cell: SelectedCell
    step: int
    solved: int
    renderer: str


def record_video(
    run: str | Path,
    *,
    task: int | str | None = None,
    agent: str | None = None,
    seed: int | None = None,
    variant: str | None = None,
    env: str | None = None,
    episodes: Sequence[int] | None = None,
    format: Literal["gif", "webp", "png", "mp4"] = "gif",  # noqa: A002 - the option's name
    renderer: Literal["auto", "software", "osmesa", "egl", "glfw"] = "auto",
    size: int = 480,
    most_frames: int = 150,
    rate: float = 25.0,
    out: str | Path | None = None,
) -> list[RecordedVideo]:
    """Draw episodes of the newest checkpoints of a run, the same that its evaluation counted.

    Args:
        run: run directory.
        task: only this task, by number or name.
        agent: only this agent; by default all but behaviour cloning.
        seed: this seed; the smallest by default.
        variant: only this one, as the tables name it.
        env: the environment of the run, where making it imports a module (`module:Name-v0`); a
            run directory alone is no reason to run code.
        episodes: numbers of the evaluation's episodes; the first three by default.
        format: of the files; `png` is animated.
        renderer: `software` needs no driver; `auto` prefers OSMesa.
        size: of a view, in pixels.
        most_frames: per episode; of longer ones every n-th step is shown.
        rate: frames a second.
        out: folder of the files; `videos` in the run directory by default.

    Returns:
        One file for each task, agent and variant.

    Raises:
        ValueError: nothing fits, or a number is out of its range.
        BenchError: there is no checkpoint, or an environment failed.
    """
    _require_within("size", size, 1, 2000)
    _require_within("most-frames", most_frames, 1, 2000)
    _require_within("rate", rate, 0.1, 100)
    require_encoder(format)
    directory = Path(run)
    selected = select_cells(directory, agent=agent, task=_text(task), seed=seed, variant=variant)
    numbers = _episodes(selected, episodes)
    folder, videos = directory / "videos" if out is None else Path(out), []
    with process_state_kept(), SimulatorPool() as pool:
        for cell in selected:
            rollout = play(cell, pool, env)
            file = folder / f"{cell.file_name}.{format}"
            title = f"{cell.label}, {cell.phase} step {rollout.step:,}"
            used = record(
                rollout, numbers, file, title=title, renderer=renderer, size=size,
                most_frames=most_frames, rate=rate,
            )  # fmt: skip
            videos.append(RecordedVideo(file, cell, rollout.step, rollout.solved, used))
    return videos


def _require_within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"--{name} must lie between {least:g} and {most:g}, got {value}")


def _episodes(selected: Sequence[SelectedCell], episodes: Sequence[int] | None) -> tuple[int, ...]:
    """Numbers of the episodes to show, which every run's evaluation has."""
    fewest = min(cell.episodes for cell in selected)
    numbers = tuple(range(min(3, fewest)) if episodes is None else episodes)
    if not numbers or not all(0 <= number < fewest for number in numbers):
        raise ValueError(
            f"--episodes takes numbers from 0 to {fewest - 1} of the run's evaluations, got "
            f"{' '.join(map(str, numbers)) or 'none'}"
        )
    return numbers


def _found(
    run: str | Path,
    task: int | str | None,
    *,
    agent: str | None,
    seed: int | None,
    variant: str | None,
    phase: str | None,
    policy: OwnModule | None = None,
    critic: OwnModule | None = None,
) -> TrainedPolicy:
    return find_policy(
        Path(run), agent=agent, task=_text(task), seed=seed, variant=variant, phase=phase,
        networks=policy, critic=critic,
    )  # fmt: skip


def _text(task: int | str | None) -> str | None:
    return None if task is None else str(task)
