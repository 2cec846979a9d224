"""`bench video`: what a trained policy does, as a GIF."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

__all__ = ["Video"]


@dataclass(frozen=True)
class Video:
    """Show episodes of the newest checkpoints of a run, the same that its evaluation counted.

    Needs neither a display nor a GPU: without OpenGL the scene is drawn as shaded polygons. An
    environment that does not run on MuJoCo draws itself, by its render() as rgb_array.

    Attributes:
        directory: run directory.
        agent: only this agent; by default all but behaviour cloning.
        task: only this task: its name, or its end such as task2-v0, task2 or 2 (1 is that of own
            data).
        seed: this seed; the smallest by default.
        variant: only this variant, as the tables name it.
        env: the environment of the run, module:Name-v0, where showing it imports a module of
            yours; a run directory alone is no reason to run code.
        episodes: numbers of the evaluation's episodes to show; the first three by default.
        format: gif, webp, png (animated) or mp4.
        renderer: software needs no driver; osmesa, egl and glfw are MuJoCo's; auto is OSMesa where
            it is installed and works, else software.
        size: pixels of a side of a view.
        most_frames: per episode; of longer ones every n-th step is shown.
        rate: frames a second.
        out: folder of the files; DIRECTORY/videos by default.
    """

    directory: tyro.conf.Positional[Path]
    agent: str | None = None
    task: str | None = None
    seed: int | None = None
    variant: str | None = None
    env: str | None = None
    episodes: tuple[int, ...] | None = None
    format: Literal["gif", "webp", "png", "mp4"] = "gif"
    renderer: Literal["auto", "software", "osmesa", "egl", "glfw"] = "auto"
    size: int = 480
    most_frames: int = 150
    rate: float = 25.0
    out: Path | None = None

    def run(self) -> int:
        """Play and draw one file per cell."""
        from bench.api.policies import record_video

        videos = record_video(
            self.directory,
            agent=self.agent,
            task=self.task,
            seed=self.seed,
            variant=self.variant,
            env=self.env,
            episodes=self.episodes,
            format=self.format,
            renderer=self.renderer,
            size=self.size,
            most_frames=self.most_frames,
            rate=self.rate,
            out=self.out,
        )
        for video in videos:
            cell = video.cell
            print(
                f"{video.file}: {cell.label}; {video.solved}/{cell.episodes} solved at "
                f"{cell.phase} step {video.step:,}; drawn by {video.renderer}"
            )
        return 0
