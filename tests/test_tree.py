"""A prefix tree has one node per distinct prefix, and gives every token back."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from turnwise.tree import PrefixTree

sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=9)


def tree_of(found: list[list[int]], alone: list[bool] | None = None) -> tuple[PrefixTree, np.ndarray]:
    tokens = np.array([token for one in found for token in one])
    marks = None if alone is None else np.array(alone)
    return PrefixTree.of(tokens, [len(one) for one in found], marks), tokens


@given(sequences)
def test_there_is_a_node_for_each_distinct_prefix(found: list[list[int]]) -> None:
    tree, _ = tree_of(found)
    prefixes = [tuple(one[: k + 1]) for one in found for k in range(len(one))]
    assert len(tree) == len(set(prefixes))
    node_of: dict[tuple[int, ...], int] = {}
    for prefix, node in zip(prefixes, tree.node.tolist(), strict=True):
        assert node_of.setdefault(prefix, node) == node
        assert tree.positions[node] == len(prefix) - 1


@given(sequences)
def test_nodes_hold_the_tokens(found: list[list[int]]) -> None:
    tree, tokens = tree_of(found)
    assert (tokens[tree.token][tree.node] == tokens).all()
    assert (tree.node[tree.token] == np.arange(len(tree))).all()


@given(sequences)
def test_own_nodes_are_consecutive_and_follow_the_order(found: list[list[int]]) -> None:
    tree, _ = tree_of(found)
    starts = np.cumsum([0] + [len(one) for one in found])
    numbered: list[int] = []
    for index in tree.order.tolist():
        own = tree.node[starts[index] + tree.shared[index] : starts[index + 1]]
        assert (np.diff(own) == 1).all()
        numbered.extend(own.tolist())
    assert numbered == list(range(len(tree)))


@given(sequences, st.data())
def test_who_is_alone_shares_nothing(found: list[list[int]], data: st.DataObject) -> None:
    alone = data.draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))
    tree, tokens = tree_of(found, alone)
    assert (tokens[tree.token][tree.node] == tokens).all()
    owner = np.repeat(np.arange(len(found)), [len(one) for one in found])
    for index in np.flatnonzero(alone):
        mine = set(tree.node[owner == index].tolist())
        assert mine.isdisjoint(tree.node[owner != index].tolist())
