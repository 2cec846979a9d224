"""How runs are packed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.suites import SUITES
from bench.training.cells import Pack, plan


def packs(agent: str, tasks: int, seeds: int, largest: int | None) -> tuple[Pack, ...]:
    suite = SUITES["ogbench50"].narrowed(("cube-double-play",), tuple(range(1, tasks + 1)))
    return plan(suite, agent, range(seeds), largest)


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 20) | st.none())
def test_every_run_is_in_one_pack_of_at_most_that_size(
    tasks: int, seeds: int, largest: int | None
) -> None:
    found = packs("trqam", tasks, seeds, largest)
    cells = Counter((cell.task, cell.seed) for pack in found for cell in pack.cells)
    assert cells == Counter((t, s) for t in range(1, tasks + 1) for s in range(seeds))
    assert len({pack.name for pack in found}) == len(found)
    if largest is None:
        assert len(found) == 1
    else:
        assert max(len(pack.cells) for pack in found) <= largest
    clones = packs("bc", tasks, seeds, largest)
    for pack in found:
        (clone,) = [clone for clone in clones if clone.seeds == pack.seeds]
        assert clone.domain.tasks == tuple(range(1, tasks + 1))


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, [1] * 10), (2, [2, 1, 2] * 2), (5, [5, 5]), (9, [5, 5]), (10, [10])]
)
def test_seeds_are_split_before_tasks(largest: int, sizes: list[int]) -> None:
    assert sorted(len(pack.cells) for pack in packs("trqam", 5, 2, largest)) == sorted(sizes)


def test_names_say_which_part_of_the_tasks() -> None:
    names = [pack.name for pack in packs("trqam", 4, 1, 2)]
    assert names == [
        "cube-double-play--trqam--tasks-1-2--seeds-0",
        "cube-double-play--trqam--tasks-3-4--seeds-0",
    ]
