"""Leaks between the parts of a benchmark: what is found, what is said, and bad input."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imret.core import DatasetError, l2_normalize
from imret.evaluation import AuditSet, LeakReport, audit
from imret.evaluation.audit import near_pairs


def vectors(seed, n, dim=8):
    return l2_normalize(np.random.default_rng(seed).normal(size=(n, dim)))


@pytest.fixture
def files(tmp_path):
    "Six files; the last is a copy of the first."
    paths = [tmp_path / f"{n}.jpg" for n in range(6)]
    for n, p in enumerate(paths):
        p.write_bytes(bytes([n]) * 100)
    shutil.copy(paths[0], paths[5])
    return paths


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(1, 12), st.integers(1, 15))
def test_near_pairs_against_loops(seed, n, m, block):
    a, b = vectors(seed, n), vectors(seed + 1, m)
    i, j, cosines = near_pairs(a, b, 0.3, block=block)
    slow = [(p, q) for p in range(n) for q in range(m) if a[p] @ b[q] >= 0.3]
    assert list(zip(i, j, strict=True)) == slow
    assert np.allclose(cosines, [a[p] @ b[q] for p, q in slow], atol=1e-6)


def test_a_copy_is_one_pair_not_two(files):
    x = vectors(0, 6)
    x[5] = x[0]
    report = audit(AuditSet(files[:3], x[:3]), query=AuditSet(files[3:], x[3:]), threshold=0.99)
    row = report.pairs.iloc[0]
    assert len(report.pairs) == 1 and row["kind"] == "same file" and row["similarity"] == 1
    assert (row["part_a"], row["a"], row["part_b"], row["b"]) == ("train", 0, "query", 2)
    assert (row["file_a"], row["file_b"]) == (str(files[0]), str(files[5]))


def test_three_parts_are_three_comparisons(files):
    parts = {"train": files[:2], "query": files[2:4], "database": files[4:]}
    report = audit(**{name: AuditSet(f) for name, f in parts.items()})
    assert list(report.counts.index) == [
        ("train", "query"),
        ("train", "database"),
        ("query", "database"),
    ]
    assert report.counts["same file"].tolist() == [0, 1, 0]
    assert report.counts["near duplicate"].isna().all()
    assert report.pairs["similarity"].isna().all()
    text = repr(report)
    assert "train and query: no same file, near duplicates not compared" in text
    assert "1 of 2 database images have a twin in train" in text
    assert text.endswith("classes not compared")


def test_files_of_one_part_only_are_not_compared(files):
    report = audit(AuditSet(files, vectors(0, 6)), database=AuditSet(vectors=vectors(1, 4)))
    assert np.isnan(report.counts["same file"].iloc[0])
    assert "same files not compared" in repr(report)
    assert set(report.pairs["file_b"]) <= {None}


def test_queries_that_stand_in_the_database_are_counted_once():
    x = vectors(0, 3)
    report = audit(
        query=AuditSet(vectors=x), database=AuditSet(vectors=np.repeat(x[:2], 4, axis=0))
    )
    assert report.counts["near duplicate"].iloc[0] == 8
    assert "2 of 3 query images have a twin in database" in repr(report)


def test_shared_classes():
    train, query = (
        AuditSet(labels=["tower", "bridge", "bridge"]),
        AuditSet(labels=["bridge", "arch"]),
    )
    report = audit(train, query, AuditSet(labels=["arch", "arch"]))
    assert report.shared_classes == ["bridge"]
    assert report.classes.loc["bridge"].to_dict() == {"train": 2, "query": 1, "database": 0}
    assert "1 of 2 classes of train are in the test: bridge" in repr(report)
    assert audit(query=query, database=AuditSet(labels=["bridge"])).shared_classes == []


def test_pairs_are_sorted_and_nothing_found_is_an_empty_table():
    report = audit(
        AuditSet(vectors=vectors(0, 40)), query=AuditSet(vectors=vectors(1, 40)), threshold=0.5
    )
    assert report.pairs["similarity"].is_monotonic_decreasing and len(report.pairs) > 3
    clean = audit(AuditSet(vectors=np.eye(4)[:2]), query=AuditSet(vectors=np.eye(4)[2:]))
    assert isinstance(clean, LeakReport) and not len(clean.pairs)
    assert clean.pairs.columns.tolist() == report.pairs.columns.tolist()
    assert "no near duplicate\n" in repr(clean)


def test_length_does_not_matter():
    x = vectors(0, 5)
    report = audit(AuditSet(vectors=7 * x), query=AuditSet(vectors=0.1 * x), threshold=0.9999)
    assert len(report.pairs) == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: audit(AuditSet(labels=["a"])), "at least two of train, query, database"),
        (lambda: AuditSet(), "got none of them"),
        (lambda: AuditSet(["a.jpg"], np.eye(2)), "describe the same images"),
        (lambda: AuditSet(vectors=np.ones(3)), "a matrix"),
        (lambda: AuditSet(vectors=[[np.nan, 1]]), "finite"),
        (lambda: audit(AuditSet(["no.jpg"]), AuditSet(["no.jpg"])), "no.jpg cannot be read"),
        (lambda: audit(AuditSet(vectors=np.eye(2)), AuditSet(vectors=np.eye(3))), "use one net"),
        (lambda: audit(AuditSet(labels="a"), AuditSet(labels="b"), threshold=0), "cosine above 0"),
        (
            lambda: audit(AuditSet(vectors=np.eye(2)), AuditSet(vectors=np.eye(2)), max_pairs=1),
            "more than 1 pairs",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(DatasetError, match=message):
        call()
