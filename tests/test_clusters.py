"""What the cluster explorer computes, against plain loops; large groups; bad input."""

import json

import numpy as np
import pytest
from PIL import Image

from imret.core import ImretError, l2_normalize
from imret.explore import ClusterExplorer, nearest, weakest_pair


@pytest.fixture
def images(tmp_path):
    "Ten pictures, one of them broken."
    paths = [tmp_path / f"{n}.png" for n in range(10)]
    for n, path in enumerate(paths):
        Image.new("RGB", (30 + n, 20), (20 * n, 90, 90)).save(path)
    paths[4].write_text("no picture")
    return paths


@pytest.fixture
def vectors():
    return l2_normalize(np.random.default_rng(0).normal(size=(10, 5)))


def test_weakest_pair_and_nearest_against_loops(vectors):
    similarity = vectors @ vectors.T
    pairs = [(similarity[i, j], i, j) for i in range(10) for j in range(i + 1, 10)]
    assert weakest_pair(similarity) == min(pairs)[1:]
    for q in range(10):
        wanted = sorted((i for i in range(10) if i != q), key=lambda i: (-similarity[q, i], i))
        assert nearest(similarity[q], 4, q).tolist() == wanted[:4]
    assert nearest(np.ones(4), 9, 1).tolist() == [0, 2, 3]
    assert weakest_pair(np.ones((3, 3))) == (0, 1)


def test_the_state_is_what_the_vectors_say(images, vectors):
    groups, queries = [[7, 2, 5], [0, 9]], [3]
    given = {"groups": groups, "queries": queries, "k": 4, "labels": list("aabbccddee")}
    explorer = ClusterExplorer(images, vectors, **given)
    similarity = vectors @ vectors.T
    by_table = ClusterExplorer(images, similarity=similarity, **given)
    assert explorer.state == by_table.state
    shown = explorer.state["images"]
    for (kind, ids), page in zip(explorer.clusters, explorer.state["clusters"], strict=True):
        assert [shown[i]["id"] for i in page["images"]] == ids
        for a, i in enumerate(ids):
            assert page["scores"][a] == [f"{similarity[i, j]:.3f}" for j in ids]
        assert (page["weakest"] == []) == (kind == "nearest")
    assert explorer.clusters[2] == ("nearest", [3, *nearest(similarity[3], 4, 3)])
    json.loads(json.dumps(explorer.state, allow_nan=False))
    explorer.figure()


def test_a_large_group_keeps_its_weakest_pair(images, vectors):
    explorer = ClusterExplorer(images, vectors, groups=[range(10)], members=4)
    page = explorer.state["clusters"][0]
    similarity = vectors @ vectors.T
    ids = [explorer.state["images"][i]["id"] for i in page["images"]]
    assert len(ids) == len(explorer.state["images"]) == 4
    assert tuple(ids[n] for n in page["weakest"]) == weakest_pair(similarity)
    assert page["facts"].startswith(f"10 pictures · weakest pair {similarity.min():.3f}")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"groups": [[0, 1], [2]]}, "group 1 needs two or more different"),
        ({"groups": [[0, 0]]}, "group 0 needs two or more different"),
        ({"groups": [[0, 10]]}, "group 0: 10 is not the position of one of 10 images"),
        ({"groups": [[-1, 1]]}, "group 0: -1 is not"),
        ({"groups": [[0, 1]], "queries": [99]}, "query 0: 99 is not"),
        ({}, "nothing to show"),
        ({"queries": [1], "labels": ["a"]}, "10 images need as many labels, not 1"),
        ({"queries": [1], "similarity": np.eye(10)}, "either vectors or similarity"),
    ],
)
def test_bad_input(images, vectors, arguments, message):
    with pytest.raises(ImretError, match=message):
        ClusterExplorer(images, vectors, **arguments)


def test_bad_tables(images, vectors):
    with pytest.raises(ImretError, match="either vectors or similarity"):
        ClusterExplorer(images, queries=[1])
    with pytest.raises(ImretError, match="10 images need similarity with a row each"):
        ClusterExplorer(images, similarity=vectors, queries=[1])
    vectors[6, 2] = np.nan
    with pytest.raises(ImretError, match="row 6 is not finite"):
        ClusterExplorer(images, vectors, queries=[1])
