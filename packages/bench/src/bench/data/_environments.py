"""OGBench's environments, made without its side effects."""

import tempfile
from typing import Any

from bench.machine import switch_drawing_off


def make_environment(environment_id: str, **settings: Any) -> Any:
    """The bare environment: no time limit and no checks around it.

    Drawing is switched off for this process as `bench.simulation` does.

    Args:
        environment_id: OGBench's id, e.g. `cube-double-v0`.
        settings: passed on to the environment.

    Raises:
        ValueError: if OGBench has no such environment.
    """
    switch_drawing_off()
    # Imported here: MuJoCo takes a second to start, and not every use of data needs it.
    import gymnasium
    import ogbench  # noqa: F401 (registers the environments)

    # OGBench writes each maze to a temporary file and leaves it there; keep that tidy.
    with tempfile.TemporaryDirectory() as folder:
        previous, tempfile.tempdir = tempfile.tempdir, folder
        try:
            return gymnasium.make(environment_id, disable_env_checker=True, **settings).unwrapped
        except gymnasium.error.UnregisteredEnv as error:
            raise ValueError(f"OGBench has no environment '{environment_id}'") from error
        finally:
            tempfile.tempdir = previous
