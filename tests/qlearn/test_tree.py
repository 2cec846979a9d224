"""Functions of observation trees, leaf by leaf."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qlearn import (
    LeafSpec,
    check_spec,
    leading_shape,
    tree_concat,
    tree_leaves,
    tree_map,
    tree_rows,
    tree_spec,
)

NAMES = st.lists(
    st.sampled_from(["state", "image", "wrist/rgb", "a", "Z"]), min_size=1, unique=True
)


def tree(names: list[str], rows: int, first: int = 0) -> dict[str, Tensor]:
    """Leaves of different rank and type; every number is the row's."""
    number = torch.arange(first, first + rows)
    return {
        name: number.view(rows, *(1,) * place)
        .expand(rows, *(2,) * place)
        .to(torch.uint8 if place % 2 else torch.float32)
        for place, name in enumerate(names)
    }


@given(NAMES, st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_rows_and_concatenation_act_on_every_leaf(names: list[str], index: list[int]) -> None:
    given_tree = tree(names, 5)
    wanted = torch.tensor(index)
    rows = tree_rows(given_tree, wanted)
    assert list(rows) == sorted(names)
    joined = tree_concat([given_tree, rows], 0)
    for name in names:
        assert rows[name].dtype == given_tree[name].dtype
        assert torch.equal(rows[name], given_tree[name][wanted])
        assert torch.equal(joined[name], torch.cat([given_tree[name], rows[name]]))
    assert leading_shape(joined, 1) == (5 + len(index),)


@given(NAMES)
def test_specs_have_the_form_of_what_they_describe(names: list[str]) -> None:
    given_tree = tree(names, 3)
    spec = tree_spec(given_tree, 1)
    assert list(spec) == sorted(names)
    check_spec(given_tree, spec, 1)
    for name, leaf in given_tree.items():
        assert spec[name] == LeafSpec(tuple(leaf.shape[1:]), leaf.dtype)
    shuffled = dict(reversed(list(given_tree.items())))
    assert tree_leaves(shuffled) == tree_leaves(given_tree)
    for name in names:
        other = {**given_tree, name: given_tree[name].double()}
        with pytest.raises(ValueError, match="is float64"):
            check_spec(other, spec, 1)
        short = {**given_tree, name: given_tree[name][:2]}
        if len(names) > 1:
            with pytest.raises(ValueError, match=r"leading axes \(\d,\).* expected the same"):
                check_spec(short, spec, 1)
        with pytest.raises(ValueError, match="expected leaves"):
            check_spec({**given_tree, "extra": given_tree[name]}, spec, 1)


def test_one_tensor_is_passed_on_as_it_is() -> None:
    rows = torch.randn(4, 3)
    assert tree_map(lambda leaf: leaf, rows) is rows
    assert tree_leaves(rows) == [("", rows)]
    assert torch.equal(tree_rows(rows, torch.tensor([2, 0])), rows[[2, 0]])
    assert torch.equal(tree_concat([rows, rows], 1), torch.cat([rows, rows], 1))
    assert tree_spec(rows, 1) == LeafSpec((3,), torch.float32)
    check_spec(rows, LeafSpec((4, 3), torch.float32), 0)
    with pytest.raises(ValueError, match=r"are one tensor, expected leaves \['a'\]"):
        check_spec(rows, {"a": LeafSpec((3,), torch.float32)}, 1)
    with pytest.raises(ValueError, match=r"are leaves \['a'\], expected one tensor"):
        tree_map(lambda a, b: a, rows, {"a": rows})


def test_what_is_no_tree_is_refused() -> None:
    rows = torch.zeros(2, 3)
    for wrong, message in (
        ({}, "without leaves"),
        ({1: rows}, "leaf named 1"),
        ({"robot": {"arm": rows}}, "such as 'robot/arm'"),
    ):
        with pytest.raises(ValueError, match=message):
            tree_leaves(wrong)
    with pytest.raises(ValueError, match="at least 3 leading axes"):
        leading_shape({"a": rows}, 3)
    with pytest.raises(ValueError, match="no observations"):
        tree_concat([], 0)
    images = {"image": LeafSpec((4, 4, 3), torch.uint8)}
    with pytest.raises(
        ValueError, match=r"\['image'\] is float32\[4, 4, 3\].*convert images to uint8"
    ):
        check_spec({"image": torch.zeros(5, 4, 4, 3)}, images, 1)
