"""Training sets: lists of pairs that contradict themselves or act, compact lists, and crops."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imret.core import DatasetError
from imret.datasets.sfm import (
    check_retrieval_sfm_30k,
    check_retrieval_sfm_120k,
    cid_path,
    load_gldv1,
    load_retrieval_sfm_30k,
    load_retrieval_sfm_120k,
    make_pairs,
    number_clusters,
    read_pair_list,
)

# ---- retrieval-SfM: a dictionary of train and val, images three folders deep. The layout is that
# of https://github.com/filipradenovic/cnnimageretrieval-pytorch (traindataset.py, datahelpers.py)

CIDS = [f"{i:026x}塔 ü{i:04d}" for i in (5, 3, 9, 1, 12)]  # letters and spaces are allowed in ids
PART = {"cids": CIDS, "cluster": [0, 0, 0, 4, 4], "qidxs": [0, 1, 3], "pidxs": [1, 2, 4]}


def write_sfm(root: Path, images=CIDS, name="retrieval-SfM-120k", **parts) -> Path:
    folder = root / name
    for cid in images:
        path = cid_path(cid, folder / "ims")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path, format="jpeg")
    folder.mkdir(parents=True, exist_ok=True)
    content = {"train": PART, "val": PART} | parts
    (folder / f"{name}.pkl").write_bytes(pickle.dumps(content))
    return root


def names_of(pairs) -> list[str]:
    return [p.name for p in pairs.images]


def test_sfm_is_read_as_listed(tmp_path):
    pairs = load_retrieval_sfm_120k(write_sfm(tmp_path))
    assert names_of(pairs) == CIDS
    assert pairs.queries.tolist() == [0, 1, 3] and pairs.positives.tolist() == [1, 2, 4]
    assert pairs.clusters.tolist() == [0, 0, 0, 4, 4] and pairs.boxes is None
    assert all(p.is_file() for p in pairs.images)


def test_sfm_order_on_disk_does_not_matter(tmp_path):
    one = load_retrieval_sfm_120k(write_sfm(tmp_path / "a"))
    two = load_retrieval_sfm_120k(write_sfm(tmp_path / "b", images=CIDS[::-1]))
    assert names_of(one) == names_of(two)
    assert (one.queries == two.queries).all() and (one.clusters == two.clusters).all()


def test_sfm_30k_finds_images_next_door_and_through_a_link(tmp_path):
    write_sfm(tmp_path)
    (tmp_path / "retrieval-SfM-30k").mkdir()
    whiten = {k: PART[k] for k in ("cids", "qidxs", "pidxs")}
    file = tmp_path / "retrieval-SfM-30k" / "retrieval-SfM-30k-whiten.pkl"
    file.write_bytes(pickle.dumps(whiten))
    pairs = load_retrieval_sfm_30k(tmp_path, "whiten")
    assert (pairs.clusters == -1).all() and len(pairs) == 3
    assert "retrieval-SfM-120k" in pairs.images[0].parts
    os.symlink(tmp_path / "retrieval-SfM-120k" / "ims", file.parent / "ims")
    assert "retrieval-SfM-30k" in load_retrieval_sfm_30k(tmp_path, "whiten").images[0].parts
    assert check_retrieval_sfm_30k(tmp_path) == "whiten: 3 pairs, 5 images, 0 clusters"


def test_sfm_boxes_an_image_or_a_query(tmp_path):
    box = (1.0, 1.0, 3.0, 2.0)
    each = make_pairs(PART | {"bbxs": [None, box, None, None, None]}, Path, "x")
    assert each.boxes == [None, box, None, None, None]
    asked = make_pairs(PART | {"bbxs": [None, None, box]}, Path, "x")
    assert asked.boxes == [None, None, None, box, None]
    assert make_pairs(PART | {"bbxs": None}, Path, "x").boxes is None
    for bad in ([box], [None, (3, 1, 1, 2), None]):
        with pytest.raises(DatasetError, match="bbxs has 1 entries|is not 0 <= x1"):
            make_pairs(PART | {"bbxs": bad}, Path, "x")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"pidxs": [1, 2, 9]}, "positives point to image 1 … 9, but there are 5"),
        ({"qidxs": [0, -1, 3]}, "queries point to image -1"),
        ({"pidxs": [1, 2]}, "pidxs has|qidxs has 3 entries, but pidxs 2"),
        ({"cluster": [0, 0, 0, 4]}, "cluster has 4 entries, but cids 5"),
        ({"pidxs": [1, 2, 0]}, "pair 2 of 3, .* joins two clusters"),
        ({"cluster": [0, 0, 0, -1, -1]}, "pair 2 of 3, .* starts in no cluster"),
        ({"pidxs": [0, 2, 4]}, "pair 0 is one image twice"),
        ({"pidxs": ["1", "2", "4"]}, "pidxs holds '1', not a position"),
        ({"pidxs": [1.0, 2.0, 4.0]}, "pidxs holds 1.0, not a position"),
        ({"pidxs": [[[1]], 2, 4]}, r"pidxs holds \[1\], not a position"),
        ({"cids": None}, "has no list 'cids'"),
        ({"cids": [*CIDS[:4], "abc"]}, "'abc' is no id of an image"),
    ],
)
def test_sfm_lists_that_contradict_themselves(tmp_path, change, message):
    write_sfm(tmp_path, train=PART | change)
    with pytest.raises(DatasetError, match=message):
        load_retrieval_sfm_120k(tmp_path)
    load_retrieval_sfm_120k(tmp_path, "val")  # each part is read for itself


def test_sfm_missing_files_and_counts(tmp_path):
    with pytest.raises(DatasetError, match="retrieval-SfM-120k.pkl is not there.*imret data get"):
        load_retrieval_sfm_120k(tmp_path)
    with pytest.raises(DatasetError, match="split 'test' is not train, val or whiten"):
        load_retrieval_sfm_120k(tmp_path, "test")
    write_sfm(tmp_path, images=[])
    with pytest.raises(DatasetError, match="ims is not there"):
        load_retrieval_sfm_120k(tmp_path)
    write_sfm(tmp_path, images=CIDS[:-1])
    with pytest.raises(DatasetError, match="1 of 5 images, as .*0012, is not there"):
        check_retrieval_sfm_120k(tmp_path)
    write_sfm(tmp_path)
    with pytest.raises(DatasetError, match="5 train images, not 91,642; 5 validation images, not"):
        check_retrieval_sfm_120k(tmp_path)


def test_sfm_pickle_that_acts(tmp_path):
    trace = tmp_path / "trace"

    class Act:
        def __reduce__(self):
            return Path.touch, (trace,)

    write_sfm(tmp_path, train=Act())
    with pytest.raises(DatasetError, match="do not trust it"):
        load_retrieval_sfm_120k(tmp_path)
    assert not trace.exists()
    for content in (b"", b"no pickle", pickle.dumps([1, 2]), pickle.dumps({"val": PART})):
        (tmp_path / "retrieval-SfM-120k" / "retrieval-SfM-120k.pkl").write_bytes(content)
        with pytest.raises(DatasetError, match="no pickle|has no part 'train'"):
            load_retrieval_sfm_120k(tmp_path)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_pairs_flatten_and_guard(data):
    "Any list whose pairs lie within clusters is read pair by pair; one stray pair is refused."
    n = data.draw(st.integers(2, 12))
    clusters = data.draw(st.lists(st.integers(-1, 3), min_size=n, max_size=n))
    mates = {
        q: [p for p in range(n) if p != q and clusters[p] == clusters[q] != -1] for q in range(n)
    }
    queries = [q for q in range(n) if mates[q]]
    lists = [data.draw(st.lists(st.sampled_from(mates[q]), max_size=3)) for q in queries]
    entry = {"cids": list(range(n)), "cluster": clusters, "qidxs": queries, "pidxs": lists}
    pairs = make_pairs(entry, Path, "x")
    wanted = [(q, p) for q, some in zip(queries, lists, strict=True) for p in some]
    assert list(zip(pairs.queries.tolist(), pairs.positives.tolist(), strict=True)) == wanted
    strays = [(q, p) for q in range(n) for p in range(n) if q != p and p not in mates[q]]
    if strays:
        q, p = data.draw(st.sampled_from(strays))
        entry |= {"qidxs": [*queries, q], "pidxs": [*lists, p]}
        with pytest.raises(DatasetError, match="in no cluster|joins two clusters"):
            make_pairs(entry, Path, "x")
        if clusters[q] == -1:
            assert len(make_pairs(entry, Path, "x", drop=True)) == len(wanted)


def test_clusters_are_numbers():
    for given_ in ([3, -1, 7], np.array([3, -1, 7], np.int16), [3.0, -1.0, 7.0]):
        assert number_clusters(given_).tolist() == [3, -1, 7]
    assert number_clusters(["b", "", "None", "a", "-1", "b"]).tolist() == [1, -1, -1, 0, -1, 1]
    assert number_clusters([]).tolist() == []
    assert len(set(number_clusters([0.5, 1.5, 0.5]).tolist())) == 2


# ---- Google Landmarks v1: gl18/jpg/ID.jpg and gl18/db_gl18.pkl, as data/train/gl18 of
# https://github.com/tonyngjichun/SOLAR (create_db_pickle.py, traindataset.py)


def test_gldv1(tmp_path):
    with pytest.raises(DatasetError, match="db_gl18.pkl is not there: follow 'Training SOLAR'"):
        load_gldv1(tmp_path)
    jpg = tmp_path / "gl18" / "jpg"
    jpg.mkdir(parents=True)
    for cid in "abcdef":
        Image.new("RGB", (4, 4)).save(jpg / f"{cid}.jpg")
    part = {
        "cids": list("fbdace"),
        "cluster": ["12", "5", "12", "None", "5", "None"],
        "qidxs": [0, 1, 3],
        "pidxs": [[2], [4], [5]],
        "bbxs": [None, [0.1, 0.2, 0.5, 0.6], None],
    }
    file = jpg.parent / "db_gl18.pkl"
    file.write_bytes(pickle.dumps({"train": part, "val": part}))
    pairs = load_gldv1(tmp_path)
    assert [p.stem for p in pairs.images] == part["cids"]
    assert pairs.clusters.tolist() == [0, 1, 0, -1, 1, -1]
    assert pairs.queries.tolist() == [0, 1] and pairs.positives.tolist() == [2, 4]
    assert pairs.boxes is None and pairs.details["box"][1] == [0.1, 0.2, 0.5, 0.6]
    assert read_pair_list(file)["bbxs"] == part["bbxs"]
    (jpg / "d.jpg").unlink()
    with pytest.raises(DatasetError, match="1 of 6 images"):
        load_gldv1(tmp_path)
