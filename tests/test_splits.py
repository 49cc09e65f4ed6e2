"""Splits of labelled collections: parts do not overlap, shares hold, truth is what labels say."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from imret.core import DatasetError
from imret.datasets import (
    LabelledImages,
    Split,
    TrainingPairs,
    split_by_class,
    split_within_classes,
)

PARTS = ("train", "validation", "query", "database")
LABELS = st.lists(st.sampled_from(["a", "b", "c d", "ü", "塔", "f", "g"]), min_size=1, max_size=40)
SEEDS = st.integers(0, 2**32 - 1)


def parts(split: Split) -> dict[str, list[int]]:
    return {p: getattr(split, p).tolist() for p in PARTS}


# ---- a split by itself


@given(st.lists(st.lists(st.integers(0, 9), unique=True, max_size=4), min_size=4, max_size=4))
@settings(max_examples=80, deadline=None)
def test_overlap_is_refused_unless_allowed(ids):
    given_ = dict(zip(PARTS, ids, strict=True))
    clashes = {
        (a, b): len(set(given_[a]) & set(given_[b]))
        for i, a in enumerate(PARTS)
        for b in PARTS[i + 1 :]
    }
    clashes = {pair: n for pair, n in clashes.items() if n}
    wrong = set(clashes) - {("query", "database")}
    if wrong:
        with pytest.raises(DatasetError, match="images are in both"):
            Split("x", **given_)
        for missing in wrong:  # every pair has to be named
            with pytest.raises(DatasetError, match=f"both {missing[0]} and {missing[1]}"):
                Split("x", **given_, allowed=tuple(wrong - {missing}))
    split = Split("x", **given_, allowed=tuple(pair[::-1] for pair in clashes))
    assert parts(split) == given_
    assert {(r.part, r.other): r.images for r in split.shared().itertuples()} == clashes


@pytest.mark.parametrize(
    "ids", [[0, 0], [-1], [0.5], [1.0], ["0"], [[0], [1]], [True, False], [None], 3]
)
@pytest.mark.parametrize("part", PARTS)
def test_what_is_no_list_of_positions(part, ids):
    with pytest.raises(DatasetError, match=f"'x'.*{part}"):
        Split("x", **{part: ids})


def test_parts_are_arrays_of_their_own():
    ids = np.array([2, 1], np.uint8)
    split = Split("x", train=ids)
    ids[0] = 9
    assert split.train.tolist() == [2, 1] and split.train.dtype == np.int64
    assert all(getattr(split, p).dtype == np.int64 for p in PARTS)
    with pytest.raises(AttributeError):
        split.train = ids


# ---- classes that are never learned from


@given(LABELS, st.floats(0, 1), st.floats(0, 1), st.one_of(st.none(), SEEDS))
@settings(max_examples=80, deadline=None)
def test_split_by_class(labels, train, validation, seed):
    n = len(set(labels))
    try:
        split = split_by_class(labels, train, validation, seed)
    except DatasetError:
        # no class to learn from, to choose on, or to ask for
        few = train * n <= 0.5 or (train + validation) * n >= n - 0.5
        assert few or 0 < validation * n <= 1
        return
    here = parts(split)
    assert here["query"] == here["database"]
    together = here["train"] + here["validation"] + here["query"]
    assert sorted(together) == list(range(len(labels)))
    classes = {p: {labels[i] for i in here[p]} for p in ("train", "validation", "query")}
    assert sum(map(len, classes.values())) == n  # no class in two parts
    assert classes["train"] and classes["query"]
    assert abs(len(classes["train"]) - train * n) <= 0.5 + 1e-9
    assert abs(len(classes["validation"]) - validation * n) <= 1 + 1e-9
    assert parts(split_by_class(labels, train, validation, seed)) == here
    seen = split.describe(labels)["seen in train"]
    assert seen["query"] == seen["validation"] == 0
    if seed is None:
        assert max(classes["train"]) < min(classes["query"])


@given(LABELS, SEEDS, SEEDS)
@settings(max_examples=80, deadline=None)
def test_split_by_class_asks_for_classes_not_for_places(labels, seed, order):
    "Images in another order: the same images are learned from."
    assume(len(set(labels)) > 1)
    turned = np.random.default_rng(order).permutation(len(labels))
    one = split_by_class(labels, 0.5, 0, seed)
    two = split_by_class([labels[i] for i in turned], 0.5, 0, seed)
    for part in PARTS:
        assert sorted(turned[getattr(two, part)]) == getattr(one, part).tolist()


def test_seeds_choose_other_classes():
    labels = [f"{i:03}" for i in range(40)] * 2
    chosen = {tuple(split_by_class(labels, seed=s).train) for s in range(10)}
    assert len(chosen) == 10
    halves = split_by_class(labels, seed=None)
    assert {labels[i] for i in halves.train} == {f"{i:03}" for i in range(20)}


def test_labels_may_be_numbers_or_tuples():
    for kind in (int, np.int64, lambda i: (i, "x"), lambda i: f"{i}"):
        split = split_by_class([kind(i // 2) for i in range(8)])
        assert len(split.train) == len(split.query) == 4
        assert len(split_within_classes([kind(i // 4) for i in range(8)], 0.25).query) == 2


@pytest.mark.parametrize("shares", [(0, 0), (1, 0), (0.5, 0.5), (0.9, 0.2), (0.5, 0.1)])
def test_shares_that_leave_nothing(shares):
    with pytest.raises(DatasetError, match="-0.1 is no share"):
        split_by_class(["a", "b"], -0.1)
    with pytest.raises(DatasetError, match="all of one kind"):
        split_by_class(["a", 1])
    with pytest.raises(DatasetError, match="one class must be left"):
        split_by_class(["a", "b", "c", "d"], *shares)
    with pytest.raises(DatasetError, match="0 classes"):
        split_by_class([])


# ---- queries within classes that were learned


@given(LABELS, st.floats(0, 1), st.floats(0, 1), SEEDS)
@settings(max_examples=80, deadline=None)
def test_split_within_classes(labels, query, validation, seed):
    if query + validation >= 1:
        with pytest.raises(DatasetError, match="leave nothing to train on"):
            split_within_classes(labels, query, validation, seed)
        return
    try:
        split = split_within_classes(labels, query, validation, seed)
    except DatasetError:  # no class is large enough
        sizes = [labels.count(label) for label in set(labels)]
        asked = [min(round(query * n), n - 1) for n in sizes]
        chosen = [min(round(validation * n), n - 1 - a) for n, a in zip(sizes, asked, strict=True)]
        assert (query and not any(asked)) or (validation and not any(chosen))
        return
    here = parts(split)
    assert here["train"] == here["database"]
    together = here["train"] + here["validation"] + here["query"]
    assert sorted(together) == list(range(len(labels)))
    assert all(ids == sorted(ids) for ids in here.values())
    for label in set(labels):
        n, asked, chosen, learned = (
            sum(labels[i] == label for i in ids)
            for ids in (range(len(labels)), here["query"], here["validation"], here["train"])
        )
        assert learned >= 1
        full = asked + chosen == n - 1  # one image has to stay
        assert abs(asked - query * n) <= 0.5 + 1e-9 or full
        assert abs(chosen - validation * n) <= 0.5 + 1e-9 or full
    assert parts(split_within_classes(labels, query, validation, seed)) == here
    assert set(split.describe(labels).loc["query", ["classes", "seen in train"]]) == {
        len({labels[i] for i in here["query"]})
    }


def test_each_image_is_drawn_equally_often():
    labels = ["a"] * 10 + ["b"] * 5
    count = np.zeros(15)
    for seed in range(300):
        count[split_within_classes(labels, 0.2, seed=seed).query] += 1
    assert abs(count / 300 - 0.2).max() < 0.1
    assert len({tuple(split_within_classes(labels, seed=s).query) for s in range(20)}) > 10


@pytest.mark.parametrize(
    "shares", [(-0.1, 0), (0.5, -0.1), (1, 0), (0.5, 0.5), (float("nan"), 0), (0.1, 0)]
)
def test_shares_within_classes_that_cannot_be(shares):
    with pytest.raises(DatasetError, match="nothing to train on|is no share|less than half"):
        split_within_classes(["a", "a"], *shares)


# ---- a collection and its splits


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    paths = [root / f"{i} 塔.jpg" for i in range(40)]
    for path in paths:
        path.touch()
    return paths


@given(labels=LABELS, seed=SEEDS, how=st.sampled_from(["unseen", "seen", "own"]), data=st.data())
@settings(max_examples=80, deadline=None)
def test_retrieval_is_what_labels_say(files, labels, seed, how, data):
    n = len(labels)
    details = pd.DataFrame({"place": np.arange(n)}, index=np.arange(n)[::-1])
    images = LabelledImages("x", files[:n], labels, details=details)
    if how == "own":  # query and database overlap in part, in any order
        places = st.lists(st.integers(0, n - 1), unique=True, min_size=1)
        split = Split("own", query=data.draw(places), database=data.draw(places))
    else:
        assume(len(set(labels)) > 1)
        split = split_by_class(labels, seed=seed)
        if how == "seen":
            assume(max(map(labels.count, labels)) > 1)
            split = split_within_classes(labels, 0.4, seed=seed)
    images.splits["s"] = split
    test = images.retrieval("s")
    query, database = split.query.tolist(), split.database.tolist()
    assert test.images == [files[i] for i in database]
    assert test.queries == [files[i] for i in query]
    assert test.labels == [labels[i] for i in database]
    assert test.details["place"].tolist() == database
    for q, right, junk in zip(query, test.truth.easy, test.truth.junk, strict=True):
        assert right.tolist() == [
            k for k, i in enumerate(database) if i != q and labels[i] == labels[q]
        ]
        assert junk.tolist() == [k for k, i in enumerate(database) if i == q]
    groups = [labels[i] for i in query]
    same = np.array(groups)[:, None] == np.array(groups)
    assert (same == (test.truth.groups[:, None] == test.truth.groups)).all()


def test_parts_of_a_collection(files):
    boxes = [(0, 0, i + 1, 1) if i % 2 else None for i in range(6)]
    details = pd.DataFrame({"place": range(6)})
    images = LabelledImages("x", files[:6], list("aabbcc"), boxes, details)
    split = Split("s", train=[5, 0], query=[3], database=[1, 2])
    some = images.part(split, "train")
    assert some.images == [files[5], files[0]] and some.labels == ["c", "a"]
    assert some.boxes == [(0, 0, 6, 1), None] and some.details["place"].tolist() == [5, 0]
    assert len(images.part(split, "validation")) == 0 and not some.splits
    for call, message in (
        (lambda: images.part(split, "test"), "'test' is not one of train"),
        (lambda: images.part("s", "train"), "has no split 's'; it has none: make one"),
        (lambda: images.retrieval(Split("e", train=[0])), "has no .* images"),
        (lambda: images.retrieval(Split("e", query=[6], database=[0])), "image 6 of 6"),
        (lambda: LabelledImages("x", files[:2], ["a"]), "1 labels for 2 images"),
        (lambda: LabelledImages("x", files[:1], ["a"], [None, None]), "2 boxes for 1 images"),
        (lambda: LabelledImages("x", files[:1], ["a"], details=details), "6 details for 1 images"),
        (lambda: LabelledImages("x", files[:1], ["a"], splits={"s": split}), "image 5 of 1"),
        (lambda: LabelledImages("x", files[:1], ["a"], [(2, 0, 1, 1)]), "is not 0 <= x1"),
    ):
        with pytest.raises(DatasetError, match=message):
            call()


def test_a_split_as_a_table(files, tmp_path):
    split = split_within_classes(list("aaaabbbb"), 0.25, 0.25, seed=3)
    names = [f"{i}, 塔" for i in range(8)]
    split.to_csv(tmp_path / "s.csv", names)
    table = pd.read_csv(tmp_path / "s.csv")
    assert table.image.tolist() == names
    for part in PARTS:
        assert np.flatnonzero(table[part]).tolist() == getattr(split, part).tolist()


# ---- pairs


@pytest.mark.parametrize(
    "change, message",
    [
        ({"clusters": [0]}, "1 clusters for 3 images"),
        ({"queries": [0, 1]}, "2 queries, but 1 positives"),
        ({"queries": [3]}, "queries point to image 3"),
        ({"positives": [-1]}, "positives point to image -1"),
        ({"positives": [0]}, "pair 0 is one image twice"),
        ({"boxes": [None]}, "1 boxes for 3 images"),
        ({"details": pd.DataFrame({"a": [1]})}, "1 details for 3 images"),
    ],
)
def test_pairs_that_do_not_fit(files, change, message):
    good = {"clusters": [0, 0, -1], "queries": [0], "positives": [1]}
    assert len(TrainingPairs("x", files[:3], **good)) == 1
    with pytest.raises(DatasetError, match=message):
        TrainingPairs("x", files[:3], **(good | change))
