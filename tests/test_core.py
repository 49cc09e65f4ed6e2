"""Rankings, truths and names under inputs that nobody would write by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imret.core import (
    GroundTruth,
    ImretError,
    Ranking,
    TruthError,
    l2_normalize,
)


@given(st.lists(st.lists(st.integers(-3, 3), min_size=5, max_size=5), min_size=1, max_size=4))
def test_ties_keep_database_order(rows):
    ranking = Ranking.from_scores(np.array(rows))
    for row, ids in zip(rows, ranking.ids, strict=True):
        assert ids.tolist() == sorted(range(5), key=lambda i: (-row[i], i))


@given(st.permutations(range(7)))
def test_permuting_the_database_permutes_the_ids(order):
    scores = np.random.default_rng(0).normal(size=(3, 7))
    plain, permuted = Ranking.from_scores(scores), Ranking.from_scores(scores[:, order])
    np.testing.assert_array_equal(np.array(order)[permuted.ids], plain.ids)
    np.testing.assert_array_equal(permuted.scores, plain.scores)


@pytest.mark.parametrize(
    "ids, scores",
    [
        ([0, 1], [0.5, 0.4]),
        ([[0.5, 1.0]], [[1, 2]]),
        ([["a"]], [[1]]),
        ([[-2]], [[1]]),
        ([[0]], [[1, 2]]),
    ],
)
def test_no_ranking(ids, scores):
    with pytest.raises(TruthError):
        Ranking(ids, scores)


def test_txt_refuses_what_is_no_table(tmp_path):
    for text in ("a b\nc d\n", "1 2\n3\n", "0.5 1\n"):
        (tmp_path / "r.txt").write_text(text)
        with pytest.raises(TruthError, match="r.txt"):
            Ranking.from_txt(tmp_path / "r.txt")


def test_txt_of_one_query_and_of_one_result(tmp_path):
    for shape in ((1, 5), (5, 1)):
        ids = np.arange(5).reshape(shape)
        Ranking(ids, -ids).to_txt(tmp_path / "r.txt")
        back = Ranking.from_txt(tmp_path / "r.txt").ids
        np.testing.assert_array_equal(back if shape == (1, 5) else back.reshape(shape), ids)


@pytest.mark.parametrize(
    "given_",
    [
        {},
        {"easy": [[0]], "positive": [[0]]},
        {"easy": [[0]], "hard": [[0], [1]]},
        {"easy": [[0]], "junk": [[0]]},
        {"easy": [[0, 0]]},
        {"positive": [[-1]]},
        {"positive": [[0.5]]},
        {"positive": [["a"]]},
        {"positive": [[0]], "groups": [1, 2]},
    ],
)
def test_no_truth(given_):
    with pytest.raises(TruthError):
        GroundTruth(**given_)


def test_groups_are_equal_positives_where_none_are_given():
    truth = GroundTruth(easy=[[1, 2], [2], [5]], hard=[[3], [3, 1], []])
    assert truth.groups.tolist() == [0, 0, 1]


def test_protocols_share_every_image_out():
    truth = GroundTruth(easy=[[0, 1]], hard=[[2]], junk=[[3]])
    for name in truth.protocols:
        positives, junk = truth.protocol(name)
        rest = {"easy": [2], "hard": [0, 1]}.get(name, [])
        assert sorted([*positives[0], *junk[0]]) == [0, 1, 2, 3]
        assert set(rest) <= set(junk[0].tolist())


def test_a_zero_vector_stays_zero():
    assert not l2_normalize(np.zeros((2, 3))).any()


def test_every_error_is_one_family():
    import imret.core

    own = [o for o in vars(imret.core).values() if isinstance(o, type) and issubclass(o, Exception)]
    assert len(own) == 6 and all(issubclass(o, ImretError) for o in own)
