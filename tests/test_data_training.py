"""Training sets: lists of pairs that contradict themselves or act, compact lists, and crops."""

import io
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_server import LocalServer
from PIL import Image

from imret.core import DatasetError, GroundTruth, ImageError, ImretError
from imret.datasets.compact_lists import (
    CompactDataset,
    check_cdvs_test,
    check_cdvs_train,
    load_cdvs_test,
    load_cdvs_train,
    read_compact_pairs,
    read_compact_test,
    read_text_lists,
    write_compact_lists,
)
from imret.datasets.crops import (
    CentreCrop,
    MiddleCrop,
    Mirror,
    SquareCrop,
    StretchCrop,
    Whole,
    augment_set,
)
from imret.datasets.fetch import fetch
from imret.datasets.sfm import (
    SFM_120K,
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
from imret.datasets.splits import LabelledImages

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


def test_sfm_is_downloaded_into_the_layout_that_is_read(tmp_path):
    "From the addresses of the card to pairs; the archive holds what goes into `ims`."
    made = write_sfm(tmp_path / "made") / "retrieval-SfM-120k"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for folder in sorted((made / "ims").iterdir()):
            tar.add(folder, folder.name)
    whiten = {k: PART[k] for k in ("cids", "qidxs", "pidxs")}
    server = LocalServer()
    home = urlsplit(SFM_120K.page).path + "/data/train"
    server.files = {
        f"{home}/dbs/retrieval-SfM-120k.pkl": (made / "retrieval-SfM-120k.pkl").read_bytes(),
        f"{home}/dbs/retrieval-SfM-120k-whiten.pkl": pickle.dumps(whiten),
        f"{home}/ims/ims.tar.gz": archive.getvalue(),
    }
    files = [replace(f, url=server.address + urlsplit(f.url).path) for f in SFM_120K.files]
    try:
        fetch(files, SFM_120K.folder(tmp_path / "got"), progress=False)
    finally:
        server.close()
    for split in ("train", "val", "whiten"):
        pairs = load_retrieval_sfm_120k(tmp_path / "got", split)
        assert names_of(pairs) == CIDS and len(pairs) == 3


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


# ---- compact lists: `cids_cdvs` is dimensions x images, `imlist_global` images x dimensions, as
# the auxiliary files of "Feature Fusion for Image Retrieval with Adaptive Bitrate Allocation and
# Hard Negative Mining" (README, cirtorch/datasets/traindataset.py, test_extract2.py, Global_dis.py)

NAMES = ["db/a b.jpg", "db/塔.jpg", "db/c.jpg", "db/d.jpg"]
TEST = {
    "imlist": NAMES,
    "qimlist": ["q/x.jpg", "q/ü y.jpg"],
    "gnd_id": [{"ok": [0, 2]}, {"ok": [3]}],
    "imlist_global": np.arange(12.0).reshape(4, 3),
    "qimlist_global": np.eye(3)[:2],
}
TRAIN = {
    "cids": NAMES,
    "cluster": [5, 5, 9, 9],
    "qidxs": [0, 3],
    "pidxs": [1, 2],
    "cids_cdvs": np.arange(12.0).reshape(3, 4),
}


@pytest.fixture
def lists(tmp_path):
    for name in NAMES + TEST["qimlist"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return tmp_path


def pickled(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return path


def test_compact_layout_of_the_study(lists):
    test = read_compact_test(pickled(lists / "gnd_s.pkl", TEST), lists)
    assert (test.name, test.query_vectors.shape) == ("s", (2, 3))
    assert test.vectors.tolist() == TEST["imlist_global"].tolist()
    assert [p.relative_to(lists).as_posix() for p in test.images] == NAMES
    assert [o.tolist() for o in test.truth.easy] == [[0, 2], [3]] and test.boxes == [None, None]
    pairs = read_compact_pairs(
        pickled(lists / "t.pkl", {"train": TRAIN, "val": TRAIN}), "val", lists
    )
    assert pairs.vectors.tolist() == TRAIN["cids_cdvs"].T.tolist() and pairs.name == "t-val"
    assert pairs.vectors.dtype == np.float32 and pairs.vectors.flags.c_contiguous


def test_compact_sets_by_name(lists):
    with pytest.raises(DatasetError, match="cdvs_test_retrieval.pkl is not there: download"):
        load_cdvs_test(lists)
    with pytest.raises(DatasetError, match="cdvs_train_retrieval.pkl is not there: download"):
        load_cdvs_train(lists)
    pickled(lists / "cdvs_test_retrieval" / "gnd_cdvs_test_retrieval.pkl", TEST)
    pickled(
        lists / "cdvs_train_retrieval" / "cdvs_train_retrieval.pkl", {"train": TRAIN, "val": TRAIN}
    )
    assert check_cdvs_test(lists) == "4 database, 2 queries with 3 values each"
    assert "val: 2 pairs, 4 images with 3 values each" in check_cdvs_train(lists)
    whole = load_cdvs_train(lists, images=lambda name: lists / name)
    assert whole.images == load_cdvs_train(lists).images
    (lists / NAMES[2]).unlink()
    with pytest.raises(DatasetError, match="1 of 4 images"):
        load_cdvs_train(lists)
    with pytest.raises(DatasetError, match="1 of 6 image files are missing"):
        load_cdvs_test(lists)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"imlist_global": TEST["imlist_global"].T}, "axis 0 must have 4 entries.*transpose it"),
        (
            {"imlist_global": np.ones((5, 3))},
            "axis 0 must have 4 entries, one row an image, not 5$",
        ),
        ({"imlist_global": np.full((4, 3), np.inf)}, "4 of 4 images have values that are not fin"),
        ({"imlist_global": np.array([["a"] * 3] * 4)}, "a matrix of numbers is needed"),
        ({"qimlist_global": np.ones((2, 4))}, "vectors have 3 dimensions, query_vectors 4"),
        ({"qimlist_global": None}, "a matrix of numbers is needed"),
        ({"gnd_id": [{"ok": [0]}]}, "one {'ok': positions} a query, 2"),
        ({"gnd_id": [{"ok": [0]}, {"bad": [1]}]}, "one {'ok': positions} a query, 2"),
        ({"gnd_id": [{"ok": [0]}, {"ok": [4]}]}, "points past the database of 4"),
        ({"gnd_id": [{"ok": [0]}, {"ok": [1, 1]}]}, "position 1 is listed twice"),
        ({"gnd_id": [{"ok": [0]}, {"ok": ["a"]}]}, "positions are whole numbers"),
    ],
)
def test_compact_tests_that_contradict_themselves(lists, change, message):
    with pytest.raises(ImretError, match=message):
        read_compact_test(pickled(lists / "g.pkl", TEST | change), lists)


def test_compact_pairs_that_contradict_themselves(lists):
    for change, message in (
        ({"cids_cdvs": TRAIN["cids_cdvs"].T}, "axis 1 must have 4 entries, one column.*transpose"),
        ({"cids_cdvs": np.full((3, 4), np.nan)}, "not finite, first image 0"),
        ({"pidxs": [1, 1]}, "joins two clusters"),
    ):
        with pytest.raises(DatasetError, match=message):
            read_compact_pairs(pickled(lists / "t.pkl", {"train": TRAIN | change}), "train", lists)
    bare = {k: v for k, v in TRAIN.items() if k != "cids_cdvs"}
    with pytest.raises(DatasetError, match="has no 'cids_cdvs' in 'train'"):
        read_compact_pairs(pickled(lists / "t.pkl", {"train": bare}), "train", lists)
    with pytest.raises(DatasetError, match="has no 'imlist'"):
        read_compact_test(pickled(lists / "t.pkl", TRAIN), lists)


def test_names_without_an_ending(lists):
    short = TEST | {"imlist": [n.removesuffix(".jpg") for n in NAMES]}
    test = read_compact_test(pickled(lists / "g.pkl", short), lists)
    assert [p.name for p in test.images] == [Path(n).name for n in NAMES]


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_compact_sets_survive_writing(tmp_path_factory, data):
    "Pickle and text bring back images, truth, groups, boxes and vectors as they were."
    root = tmp_path_factory.mktemp("w")
    n, q, d = (data.draw(st.integers(1, 5)) for _ in range(3))
    stems = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0\t\r\n."), min_size=1)
    names = data.draw(
        st.lists(
            stems.filter(lambda s: len(s.encode()) < 60),
            min_size=n + q,
            max_size=n + q,
            unique=True,
        )
    )
    paths = [root / f"{i} {name}.png" for i, name in enumerate(names)]
    for path in paths:
        path.touch()
    floats = st.floats(-1e3, 1e3, width=32)
    x, y = (
        np.array(
            data.draw(st.lists(st.lists(floats, min_size=d, max_size=d), min_size=k, max_size=k))
        )
        for k in (n, q)
    )
    marks = [data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)) for _ in range(q)]
    right, junk = ([[i for i, m in enumerate(row) if m == k] for row in marks] for k in (1, 2))
    groups = data.draw(st.lists(st.integers(0, 2), min_size=q, max_size=q))
    boxes = [(0.5, 1.0, 2.25, 1e3) if data.draw(st.booleans()) else None for _ in range(q)]
    truth = GroundTruth(positive=right, junk=junk, groups=groups)
    made = CompactDataset("x", paths[:n], paths[n:], truth, x, y, boxes)
    write_compact_lists(root / "x.pkl", made, root)
    write_compact_lists(root / "text", made, root)
    for back in (read_compact_test(root / "x.pkl", root), read_text_lists(root / "text", root)):
        assert back.images == made.images and back.queries == made.queries
        assert back.boxes == made.boxes
        assert [o.tolist() for o in back.truth.easy] == right
        assert [o.tolist() for o in back.truth.junk] == junk
        assert back.truth.groups.tolist() == truth.groups.tolist()
        assert (back.vectors == made.vectors).all()
        assert (back.query_vectors == made.query_vectors).all()
    assert not [p for p in root.rglob(".*")]


def test_compact_pairs_survive_writing(lists):
    made = read_compact_pairs(pickled(lists / "t.pkl", {"train": TRAIN}), "train", lists)
    write_compact_lists(lists / "u.pkl", {"train": made, "val": made}, lists)
    write_compact_lists(lists / "text", made, lists)
    for back in (
        read_compact_pairs(lists / "u.pkl", "val", lists),
        read_text_lists(lists / "text" / "train", lists),
    ):
        for what in ("clusters", "queries", "positives", "vectors"):
            assert (getattr(back, what) == getattr(made, what)).all()
        assert back.images == made.images
    with pytest.raises(DatasetError, match="is not below"):
        write_compact_lists(lists / "u.pkl", made, lists / "db" / "elsewhere")
    made.images[0] = lists / "a\tb.jpg"
    with pytest.raises(DatasetError, match="has a tab"):
        write_compact_lists(lists / "text", made, lists)


def test_graded_truths_are_not_flattened_in_silence(lists):
    truth = GroundTruth(easy=[[0]], hard=[[1]])
    images = [lists / n for n in NAMES]
    made = CompactDataset("x", images, images[:1], truth, np.eye(4), np.eye(4)[:1])
    with pytest.raises(DatasetError, match="its truth is graded"):
        write_compact_lists(lists / "x.pkl", made, lists)


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("images.txt", b"db/c.jpg\n\ndb/d.jpg\n", "images.txt: line 2 is empty"),
        ("images.txt", b"\xff\xfe", "cannot be read as text"),
        ("images.txt", b"db/c.jpg\n", r"axis 0 must have 1 entries"),
        ("vectors.npy", b"no array", "vectors.npy is no array of numbers"),
        ("vectors.npy", pickle.dumps([1]), "vectors.npy is no array of numbers"),
        ("truth.txt", b"0\t0\t\n", "truth.txt: a line a query is needed, 2"),
        ("truth.txt", b"0\t0\t\n1\tx\t\n", "truth.txt or queries.txt: invalid literal"),
        ("truth.txt", b"0\t0\t0\n1\t1\t\n", "truth.txt: query 0: database position 0 is listed"),
        ("queries.txt", b"q/x.jpg\t3 2 1\nq/x.jpg\n", "a box is four numbers"),
    ],
)
def test_text_lists_that_are_damaged(lists, file, content, message):
    test = read_compact_test(pickled(lists / "g.pkl", TEST), lists)
    write_compact_lists(lists / "text", test, lists)
    (lists / "text" / file).write_bytes(content)
    with pytest.raises(ImretError, match=message):
        read_text_lists(lists / "text", lists)


def test_text_lists_of_pairs_that_are_damaged(lists):
    made = read_compact_pairs(pickled(lists / "t.pkl", {"train": TRAIN}), "train", lists)
    for file, content, message in (
        ("pairs.txt", b"0 1\n2\n", "pairs.txt: line 2 is '2', not 2 whole numbers"),
        ("clusters.txt", b"1\n1\n", "clusters.txt has 2 lines, images.txt 4"),
        ("clusters.txt", b"1\n1\n2\nx\n", "clusters.txt: line 4 is 'x'"),
    ):
        write_compact_lists(lists / "text", made, lists)
        (lists / "text" / "train" / file).write_bytes(content)
        with pytest.raises(DatasetError, match=message):
            read_text_lists(lists / "text" / "train", lists)
    write_compact_lists(lists / "text", made, lists)
    windows = (lists / "text" / "train" / "images.txt").read_text("utf8").replace("\n", "\r\n")
    (lists / "text" / "train" / "images.txt").write_bytes(b"\xef\xbb\xbf" + windows.encode())
    assert read_text_lists(lists / "text" / "train", lists).images == made.images


# ---- crops

RECIPES = [
    Whole((20, 15)),
    Mirror(0.5),
    MiddleCrop((20, 15)),
    CentreCrop((20, 15)),
    SquareCrop(16),
    StretchCrop(20, 17),
    StretchCrop(20, 17, random=False),
]
IDS = [f"{type(r).__name__}{i}" for i, r in enumerate(RECIPES)]
SIDES = st.tuples(st.integers(1, 90), st.integers(1, 90))


@pytest.mark.parametrize("recipe", RECIPES, ids=IDS)
@given(size=SIDES, seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_views_lie_inside_and_repeat(recipe, size, seed):
    view = recipe.plan(size, np.random.default_rng(seed))
    x1, y1, x2, y2 = view.box
    assert 0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]
    assert view == recipe.plan(size, np.random.default_rng(seed))
    assert view.size == (size if isinstance(recipe, Mirror) else view.size)
    if recipe.fits(size) and not isinstance(recipe, (Mirror, Whole, StretchCrop)):
        assert x2 - x1 >= view.size[0] - 1e-9 and y2 - y1 >= view.size[1] - 1e-9
    whole = view.move_box((0, 0, *size))
    assert np.allclose(whole, (0, 0, *view.size))
    assert 0 < view.shows((0, 0, *size)) <= 1 + 1e-9


@pytest.mark.parametrize("recipe", RECIPES, ids=IDS)
def test_pixels_of_pil_and_arrays_agree(recipe):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 61, 3), np.uint8)
    one, two = recipe(Image.fromarray(pixels), 5), recipe(pixels, 5)
    assert (np.asarray(one) == two).all() and two.dtype == np.uint8
    assert isinstance(one, Image.Image) and isinstance(two, np.ndarray)
    assert (recipe(pixels[..., 0], 5) == recipe(pixels, 5)[..., 0]).all()  # grey images too
    rng = np.random.default_rng(5)
    assert (recipe(pixels, rng) == two).all()  # a generator is advanced, a seed starts anew
    drawn = [np.asarray(recipe(pixels)).tobytes() for _ in range(40)]
    varies = not isinstance(recipe, (Whole, CentreCrop)) and getattr(recipe, "random", True)
    assert (len(set(drawn)) > 1) == varies


@given(seed=st.integers(0, 999), size=st.tuples(st.integers(8, 70), st.integers(8, 70)))
@settings(max_examples=30, deadline=None)
def test_stretch_crop_is_stretching_then_cropping(seed, size):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    recipe = StretchCrop(32, 24)
    view = recipe.plan(size, np.random.default_rng(seed))
    x, y = (round(v * 32 / have) for v, have in zip(view.box, size))  # noqa: B905
    stretched = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)
    want = np.asarray(stretched.crop((x, y, x + 24, y + 24))).astype(int)
    want = want[:, ::-1] if view.mirror else want
    assert np.abs(want - view(pixels)).max() <= 1


def test_boxes_follow_pixels():
    "A white box in a black image is where the moved box says."
    rng = np.random.default_rng(0)
    pixels = np.zeros((120, 160, 3), np.uint8)
    box = (40, 32, 96, 88)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    for recipe in (MiddleCrop((80, 60)), SquareCrop(80), StretchCrop(128, 96), Mirror(1)):
        for _ in range(10):
            view = recipe.plan((160, 120), rng)
            x1, y1, x2, y2 = view.move_box(box)
            bright = np.argwhere(view(pixels)[..., 0] > 127)
            found = (*bright.min(0)[::-1], *(bright.max(0)[::-1] + 1))
            assert np.abs(np.subtract(found, (x1, y1, x2, y2))).max() <= 1
            area = (x2 - x1) * (y2 - y1) / np.prod(view.size)
            part = (view.box[2] - view.box[0]) * (view.box[3] - view.box[1])
            assert np.isclose(area * part / (56 * 56), view.shows(box))


def test_places_are_drawn_evenly_and_to_the_edge():
    rng = np.random.default_rng(0)
    lefts = [SquareCrop(8).plan((14, 10), rng).box[0] for _ in range(2000)]
    assert sorted(set(lefts)) == [0, 1, 2, 3, 4]
    assert max(abs(lefts.count(x) / 2000 - 0.2) for x in range(5)) < 0.05
    tops = {MiddleCrop((8, 8)).plan((20, 12), rng).box[1] for _ in range(200)}
    assert tops == {0, 1, 2}  # sides halfway: 10 of 12


def test_recipes_that_cannot_be():
    for make in (
        lambda: Whole((0, 4)),
        lambda: MiddleCrop((1, 2, 3)),
        lambda: CentreCrop((1.5, 2)),
    ):
        with pytest.raises(DatasetError, match="is not a width and a height"):
            make()
    with pytest.raises(DatasetError, match="not from 1 to stretch"):
        StretchCrop(224, 256)


@pytest.fixture
def labelled(tmp_path):
    rng = np.random.default_rng(0)
    sizes = {"a/1.jpg": (60, 50), "a/2 ü.png": (30, 20), "b/塔.jpg": (80, 40), "b/1.jpg": (61, 44)}
    for name, (w, h) in sizes.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)).save(path)
    paths = [tmp_path / "in" / name for name in sizes]
    boxes = [(1, 1, 5, 5), None, (0, 0, 80, 40), (10, 10, 50, 30)]
    return LabelledImages("x", paths, ["a", "a", "b", "b"], boxes)


STUDY = {"": Whole((32, 24)), "_0": MiddleCrop((32, 24)), "_1": MiddleCrop((32, 24))}


def test_copies_are_counted_as_the_study_does(labelled, tmp_path):
    made = augment_set(labelled, tmp_path / "out", STUDY)
    assert len(made) == 3 * 4 - 2  # one image is not larger than 32 x 24 on both sides
    assert made.labels == ["a"] * 4 + ["b"] * 6
    assert made.details.source.tolist() == [0, 0, 0, 1, 2, 2, 2, 3, 3, 3]
    assert {Image.open(p).size for p in made.images} == {(32, 24)}
    assert made.boxes[3] is None and made.boxes[4] == (0, 0, 32, 24)
    names = [p.relative_to(tmp_path / "out").as_posix() for p in made.images]
    assert names[:4] == ["a/1.jpg", "a/1_0.jpg", "a/1_1.jpg", "a/2 ü.jpg"]


def test_copies_resume_and_do_not_depend_on_each_other(labelled, tmp_path):
    made = augment_set(labelled, tmp_path / "out", STUDY)
    before = {p: p.read_bytes() for p in made.images}
    for path in made.images[::2]:
        path.unlink()
    augment_set(labelled, tmp_path / "out", STUDY)
    assert {p: p.read_bytes() for p in made.images} == before
    turned = LabelledImages("x", labelled.images[::-1], labelled.labels[::-1])
    other = augment_set(turned, tmp_path / "turned", STUDY)
    for path in other.images:
        assert path.read_bytes() == before[tmp_path / "out" / path.relative_to(tmp_path / "turned")]
    seeded = augment_set(labelled, tmp_path / "seeded", STUDY, seed=1)
    assert [p.read_bytes() for p in seeded.images] != list(before.values())
    for change in ({"seed": 1}, {"quality": 90}, {"recipes": {"": Whole((33, 24))}}):
        with pytest.raises(DatasetError, match="copies made otherwise"):
            augment_set(labelled, tmp_path / "out", **({"recipes": STUDY} | change))


def test_classes_and_images_that_are_too_small(labelled, tmp_path):
    made = augment_set(labelled, tmp_path / "out", {"": CentreCrop((32, 24))}, min_images=2)
    assert made.labels == ["b", "b"]
    with pytest.raises(DatasetError, match="no image is left"):
        augment_set(labelled, tmp_path / "none", {"": CentreCrop((320, 240))})
    with pytest.raises(DatasetError, match="no recipes"):
        augment_set(labelled, tmp_path / "none", {})


def test_copies_that_cannot_be(labelled, tmp_path):
    twice = LabelledImages("x", [labelled.images[0]] * 2, ["a", "a"])
    with pytest.raises(DatasetError, match="listed twice"):
        augment_set(twice, tmp_path / "o1", STUDY)
    clash = labelled.images[0].with_name("1_0.jpg")
    Image.new("RGB", (9, 9)).save(clash)
    with pytest.raises(DatasetError, match="1_0.jpg and .*1.jpg both"):
        augment_set(LabelledImages("x", [labelled.images[0], clash], "aa"), tmp_path / "o2", STUDY)
    clash.write_bytes(labelled.images[0].read_bytes()[:200])
    with pytest.raises(ImageError, match="cannot be read as an image"):
        augment_set(LabelledImages("x", [clash], "a"), tmp_path / "o3", STUDY)
    assert not [p for p in tmp_path.rglob(".*")]


def test_copies_stand_upright(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(path, exif=exif)
    made = augment_set(LabelledImages("x", [path], "a"), tmp_path / "out", {"": Mirror(1)})
    assert Image.open(made.images[0]).size == (40, 60)
