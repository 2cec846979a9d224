from pathlib import Path

import pytest

from bench.data import RECIPES, DatasetName, recipe_for, task_number
from bench.standard_sizes import standard_transitions
from bench.suites import SUITES, Domain


@pytest.mark.parametrize(
    ("text", "environment", "kind", "transitions", "shards"),
    [
        ("cube-double-play-v0", "cube-double", "play", None, 0),
        ("puzzle-3x3-play-v0", "puzzle-3x3", "play", None, 0),
        ("scene-play-v0", "scene", "play", None, 0),
        ("pointmaze-medium-navigate-100k-v0", "pointmaze-medium", "navigate", 100_000, 0),
        ("cube-triple-play-10m-v0", "cube-triple", "play", 10_000_000, 10),
        ("cube-quadruple-play-100m-v0", "cube-quadruple", "play", 100_000_000, 100),
    ],
)
def test_parts_of_a_name(
    text: str, environment: str, kind: str, transitions: int | None, shards: int
) -> None:
    name = DatasetName.parse(text)
    assert str(name) == text
    assert (name.environment, name.kind) == (environment, kind)
    assert name.environment_id == f"{environment}-v0"
    assert (name.transitions, name.shards) == (transitions, shards)


def test_a_task_names_its_dataset() -> None:
    name = DatasetName.parse("cube-double-play-singletask-task4-v0")
    assert str(name) == "cube-double-play-v0"
    assert name.task(4) == "cube-double-play-singletask-task4-v0"


@pytest.mark.parametrize("text", ["", "cube", "cube-double-v0", "../play-v0", "a/b-play-v0", "x y"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a dataset name"):
        DatasetName.parse(text)


def test_files_of_large_sets_follow_the_published_layout() -> None:
    name = DatasetName.parse("cube-quadruple-play-100m-v0")
    files = name.files(Path("d"))
    assert len(files) == 100
    assert files[7] == Path("d/cube-quadruple-play-100m-v0/cube-quadruple-play-v0-007.npz")
    validation = name.files(Path("d"), validation=True)
    assert validation[99].name == "cube-quadruple-play-v0-099-val.npz"


@pytest.mark.parametrize("text", ["3", "task3", "scene-play-singletask-task3-v0"])
def test_task_numbers(text: str) -> None:
    assert task_number(text) == 3


@pytest.mark.parametrize("text", ["task0", "task6", "task", "scene-play-v0", "33"])
def test_no_task(text: str) -> None:
    with pytest.raises(ValueError, match="names no task"):
        task_number(text)


def test_recipes_state_the_published_sizes() -> None:
    # OGBench, table of datasets: transitions of the standard sets.
    millions = {"cube-triple-play": 3, "cube-quadruple-play": 5, "puzzle-4x6-play": 5}
    millions |= {f"humanoidmaze-{size}-navigate": 2 for size in ("medium", "large", "giant")}
    millions |= {"humanoidmaze-medium-stitch": 2, "humanoidmaze-large-stitch": 2}
    millions |= {"humanoidmaze-giant-stitch": 4, "cube-triple-noisy": 3, "cube-quadruple-noisy": 5}
    millions |= {"puzzle-4x5-noisy": 3, "puzzle-4x6-noisy": 5}
    for size in ("medium", "large", "teleport"):
        millions |= {f"antmaze-{size}-explore": 5, f"pointmaze-{size}-explore": 5}
    for stem, recipe in RECIPES.items():
        if stem == "puzzle-4x5-play":
            continue
        assert recipe.transitions == 1_000_000 * millions.get(stem, 1), stem


def test_the_nearest_recipe_is_named() -> None:
    with pytest.raises(ValueError, match="near it: cube-double-play"):
        recipe_for(DatasetName.parse("cube-duoble-play-v0"))
    with pytest.raises(ValueError, match="no scripted policy"):
        recipe_for(DatasetName.parse("antsoccer-arena-navigate-v0"))


@pytest.mark.parametrize(
    ("transitions", "text"),
    [
        (2_000, "scene-play-2k-v0"),
        (1_500_000, "scene-play-1500k-v0"),
        (10_000_000, "scene-play-10m-v0"),
        (1_000_000_000, "scene-play-1b-v0"),
    ],
)
def test_sizes_have_names(transitions: int, text: str) -> None:
    name = DatasetName.parse("scene-play-100m-v0").resized(transitions)
    assert name == DatasetName.parse(text)


@pytest.mark.parametrize("transitions", [0, -1000, 1234])
def test_sizes_without_a_name(transitions: int) -> None:
    with pytest.raises(ValueError, match="multiple of 1,000"):
        DatasetName.parse("scene-play-v0").resized(transitions)


@pytest.mark.parametrize("recipe", RECIPES)
def test_standard_sizes_are_those_of_the_recipes(recipe: str) -> None:
    assert standard_transitions(recipe) == RECIPES[recipe].transitions


def test_a_number_of_transitions_is_one_name() -> None:
    sizes = (5_000, 1_000_000, 1_500_000, 2_000_000, 3_000_000, 5_000_000, 10_000_000, 100_000_000)
    names = [Domain("cube-triple-play", size).dataset for size in sizes]
    assert names == [
        f"cube-triple-play{size}-v0"
        for size in ("-5k", "-1m", "-1500k", "-2m", "", "-5m", "-10m", "-100m")
    ]
    for size, name in zip(sizes, names, strict=True):
        assert DatasetName.parse(name).transitions in (size, None)
    with pytest.raises(ValueError, match="multiple of 1,000"):
        _ = Domain("cube-triple-play", 1_234).dataset


def test_the_suites_use_the_published_files() -> None:
    published = {
        "ogbench50-qam": ("cube-triple-play-v0", 3_000_000),
        "ogbench50-fql": ("humanoidmaze-medium-navigate-v0", 2_000_000),
        "ogbench50": ("antmaze-giant-navigate-10m-v0", 10_000_000),
    }
    for name, (dataset, transitions) in published.items():
        domains = {d.dataset: d.transitions for d in SUITES[name].domains}
        assert domains[dataset] == transitions


@pytest.mark.parametrize("text", ["cube-double-play-999999999b-v0", "scene-play-11b-v0"])
def test_no_name_stands_for_endless_data(text: str) -> None:
    with pytest.raises(ValueError, match="more than the 10,000,000,000 transitions"):
        DatasetName.parse(text)
    assert DatasetName.parse("scene-play-10b-v0").shards == 10_000
