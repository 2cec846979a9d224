import pytest

from bench.simulation import environment_id, physics_label, simulator_versions


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


def test_versions_and_label_tell_the_two_physics_apart() -> None:
    versions = simulator_versions()
    assert set(versions) == {"mujoco", "dm_control", "ogbench", "gymnasium"}
    assert physics_label({"mujoco": "3.4.0"}) == "mujoco<3.5"
    assert physics_label({"mujoco": "2.3.7"}) == "mujoco<3.5"
    assert physics_label({"mujoco": "3.5.0"}).startswith("mujoco>=3.5")
    assert physics_label({"mujoco": "3.17.1"}).startswith("mujoco>=3.5")
    assert physics_label({"mujoco": "4.0.0"}).startswith("mujoco>=3.5")
