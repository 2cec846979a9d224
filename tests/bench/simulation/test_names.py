import pytest

from bench.simulation import environment_id


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cube-single-play-singletask-task1-v0", "cube-single-singletask-task1-v0"),
        ("cube-single-play-singletask-v0", "cube-single-singletask-v0"),
        ("pointmaze-medium-navigate-singletask-task5-v0", "pointmaze-medium-singletask-task5-v0"),
        ("puzzle-4x4-play-v0", "puzzle-4x4-v0"),
        ("scene-singletask-task2-v0", "scene-singletask-task2-v0"),
        ("Pendulum-v1", "Pendulum-v1"),
        ("contrived_environments:Counting-None-v0", "Counting-None-v0"),
    ],
)
def test_task_names_lead_to_environments(name: str, expected: str) -> None:
    assert environment_id(name) == expected


def test_an_unknown_task_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"did you mean.*cube-single-singletask-task1-v0"):
        environment_id("cube-singel-play-singletask-task1-v0")
    with pytest.raises(ValueError, match="module 'no_such_module'"):
        environment_id("no_such_module:Thing-v0")
