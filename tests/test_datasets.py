"""Datasets: bad input, geometry against brute force, pickles that bite, many making one set."""

import io
import os
import pickle
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from imret.core import DatasetError, GroundTruth, ImretError, TruthError
from imret.datasets import (
    RetrievalDataset,
    list_datasets,
    list_images,
    load_dataset,
    load_folders,
    load_manifest,
    load_revisited,
    read_pickle,
    read_revisited,
)
from imret.datasets.photos import CHECKSUM, load_photos, plan_checksum
from imret.datasets.views import (
    AMOUNTS,
    box_corners,
    plan_view,
    project,
    quad_homography,
    render_view,
    visible_fraction,
)


def write_images(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path, format="png")
    return root


# ---- listing


def test_listing(tmp_path):
    names = ["b/x.JPG", "b.d/y.jpeg", "a b/塔 ü.png", "Z.webp"]
    write_images(tmp_path, *names, ".hidden/x.jpg", ".x.jpg")
    (tmp_path / "read.me").touch()
    listed = [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path)]
    assert listed == sorted(names)
    assert list_images(str(tmp_path)) == list_images(tmp_path)


def test_listing_follows_links_once(tmp_path):
    write_images(tmp_path, "away/1.jpg", "root/2.jpg")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "away")
    (tmp_path / "root" / "circle").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "3.jpg").symlink_to(tmp_path / "away" / "1.jpg")
    assert [p.name for p in list_images(tmp_path / "root")] == ["2.jpg", "3.jpg", "1.jpg"]


def test_listing_nothing(tmp_path):
    (tmp_path / "note.txt").touch()
    for path, message in [
        (tmp_path, "holds no image"),
        (tmp_path / "none", "does not exist"),
        (tmp_path / "note.txt", "is a file, not a folder"),
    ]:
        with pytest.raises(DatasetError, match=message):
            list_images(path)


# ---- the object

TRUTH = GroundTruth(easy=[[0]], hard=[[1]], groups=["x"])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images": []}, "no database images"),
        ({"queries": [], "boxes": []}, "no query images"),
        ({"images": ["a.png"]}, "hard position 1 points past the database of 1 images"),
        ({"boxes": [None, None]}, "boxes has 2 entries, but one a query is needed, 1"),
        ({"boxes": [(0, 0, 1)]}, "a box is four numbers"),
        ({"boxes": [(0, 0, float("nan"), 1)]}, "is not 0 <= x1"),
        ({"boxes": [(-1, 0, 1, 1)]}, "is not 0 <= x1"),
        ({"labels": ["x"]}, "labels has 1 entries, but one a database image is needed, 2"),
        ({"details": pd.DataFrame({"a": [1]})}, "details has 1 entries"),
        ({"truth": GroundTruth(positive=[[0], [1]])}, "truth has 2 entries"),
        ({"images": ["a.png", "z.png"]}, "1 of 3 image files are missing: .*z.png"),
    ],
)
def test_dataset_refuses(tmp_path, change, message):
    write_images(tmp_path, "a.png", "b.png", "q.png")
    fits = dict(name="n", images=["a.png", "b.png"], queries=["q.png"], truth=TRUTH, boxes=[None])
    fits |= change
    for kind in ("images", "queries"):
        fits[kind] = [tmp_path / p for p in fits[kind]]
    with pytest.raises(ImretError, match=message):
        RetrievalDataset(**fits)


def test_many_missing_files_are_counted():
    with pytest.raises(DatasetError, match=r"101 of 101 image files are missing: 0, 1, 2, …"):
        RetrievalDataset("n", [str(i) for i in range(100)], ["q"], GroundTruth(positive=[[0]]))


# ---- load_dataset


def test_load_unknown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    for given_, message in [
        ("fotos", "known are .*did you mean photos"),
        ("", "known are .*photos"),
        (tmp_path / "none", "unknown dataset, file or folder"),
        ("notes.txt", "is no set: give a folder"),
        (tmp_path, "holds no image"),
    ]:
        with pytest.raises(DatasetError, match=message):
            load_dataset(given_)
    assert "photos" in list_datasets()


def test_a_name_comes_before_a_folder(tmp_path, monkeypatch):
    write_images(tmp_path, "photos/cat/1.jpg", "photos/cat/2.jpg")
    monkeypatch.chdir(tmp_path)
    assert len(load_dataset("./photos").images) == len(load_dataset(Path("photos")).images) == 2


# ---- folders


def test_folders(tmp_path):
    names = ["cat/1.jpg", "cat/deep/er/2.PNG", "dog/1.jpg", "dog/2.jpg", "塔/1.jpg"]
    found = load_dataset(write_images(tmp_path / "pets", *names))
    assert found.name == "pets" and found.labels == ["cat", "cat", "dog", "dog", "塔"]
    assert [o.tolist() for o in found.truth.easy] == [[1], [0], [3], [2], []]
    assert [o.tolist() for o in found.truth.junk] == [[0], [1], [2], [3], [4]]


def test_labels_match_however_letters_are_composed(tmp_path):
    for role, form in (("query", "NFC"), ("database", "NFD")):
        write_images(tmp_path, f"{role}/{unicodedata.normalize(form, 'café')}/1.jpg")
    assert load_folders(tmp_path).truth.easy[0].tolist() == [0]


@pytest.mark.parametrize(
    "names, message",
    [
        (["1.jpg", "2.jpg"], "1.jpg lies in no <label>/ folder: sort the images"),
        (["a/1.jpg", "a/2.jpg", "stray.jpg"], "stray.jpg lies in no <label>/ folder"),
        (["query/a/1.jpg", "a/2.jpg"], "has query/ but no database/"),
        (["database/a/1.jpg"], "has database/ but no query/"),
        (["database/1.jpg", "query/a/1.jpg"], "lies in no <label>/ folder"),
        (["a/1.jpg", "b/1.jpg"], "no query has a right answer"),
        (["database/a/1.jpg", "query/b/1.jpg"], "no query has a right answer"),
        (["query/a/.1.jpg", "database/a/1.jpg"], "query holds no image"),
    ],
)
def test_folders_refuse(tmp_path, names, message):
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_images(tmp_path, *names))


# ---- manifests

HEADER = "path,label,role,x1,y1,x2,y2,group\n"


def manifest(root: Path, text: str | bytes, name: str = "m.csv") -> Path:
    write_images(root, "a.jpg", "b.jpg", "c.jpg")
    file = root / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "cannot be read as a table"),
        (b"\xff\xfe\x00\x80garbage", "cannot be read as a table"),
        ('path,label\n"a.jpg,x\n', "cannot be read as a table"),
        ("path,label\na.jpg,x,1,2,3\n", "cannot be read as a table: .* line 2, saw 5"),
        ("path,label\na.jpg\n", "line 2: label is empty"),
        ("path\na.jpg\n", "no column 'label': its columns are path"),
        ("path;label\na.jpg;x\n", "no column 'path': its columns are path;label"),
        ("path,label,label\na.jpg,x,x\n", "two columns 'label'"),
        ("path,label\n", "has no rows"),
        ("path,label\n\n\n", "has no rows"),
        ("path,label,x1,y1\na.jpg,x,0,0\n", "has x1, y1 but not x2, y2"),
        ("path,label\na.jpg,x\nz.jpg,x\n", "line 3: path 'z.jpg' is not a file"),
        ("path,label\na.jpg,x\n\nz.jpg,x\n", "line 4: path 'z.jpg'"),
        ("path,label\n.,x\n", "line 2: path '.' is not a file"),
        ("path,label\na.jpg,\n", "line 2: label is empty"),
        ("path,label\n,x\n", "line 2: path is empty"),
        (HEADER + "a.jpg,x,ask,,,,,g\n", "line 2: role 'ask' is not one of query, database, both"),
        (HEADER + "a.jpg,x,,,,,,g\n", "line 2: role '' is not one of"),
        (HEADER + "a.jpg,x,query,,,,,\n", "line 2: group is empty"),
        (HEADER + "a.jpg,x,query,1,,3,4,g\n", "line 2: half a box, y1 is empty"),
        (HEADER + "a.jpg,x,query,1,2,3,no,g\n", "line 2: y2 is 'no', not a number"),
        (HEADER + "a.jpg,x,query,3,2,1,4,g\n", "line 2: box .* is not 0 <= x1 < x2"),
        (HEADER + "a.jpg,x,query,0,0,inf,4,g\n", "line 2: box .* is not"),
        ("path,label\na.jpg,x\nb.jpg,x\na.jpg,y\n", "line 4: path a.jpg is already in the data"),
        ("path,label\na.jpg,x\nb.jpg,x\n./a.jpg,y\n", "line 4: path a.jpg is already in the data"),
        (
            HEADER + "a.jpg,x,query,0,0,2,2,g\na.jpg,x,query,0,0,2,2,g\nb.jpg,x,database,,,,,\n",
            "line 3: path a.jpg is already in the queries",
        ),
        (HEADER + "a.jpg,x,query,,,,,g\n", "no row has the role database or both"),
        (HEADER + "a.jpg,x,database,,,,,g\n", "no row has the role query or both"),
        ("path,label\na.jpg,x\nb.jpg,y\n", "no query has a right answer"),
    ],
)
def test_manifest_refuses(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message) as e:
        load_dataset(manifest(tmp_path, text))
    assert "m.csv" in str(e.value)


def test_manifest_missing_or_broken_parquet(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        load_manifest(tmp_path / "none.csv")
    with pytest.raises(DatasetError, match="cannot be read as a table"):
        load_manifest(manifest(tmp_path, "path,label", "m.parquet"))
    file = manifest(tmp_path, "", "n.parquet")
    pd.DataFrame({"path": ["a.jpg", None], "label": [1, 1]}).to_parquet(file)
    with pytest.raises(DatasetError, match="n.parquet, row 2: path is empty"):
        load_manifest(file)


def test_manifest_takes_what_editors_write(tmp_path):
    text = f"\ufeffpath , label\r\na.jpg, x\r\n{tmp_path / 'b.jpg'},x\r\n\r\n"
    found = load_manifest(manifest(tmp_path, text))
    assert found.labels == ["x", "x"] and found.truth.easy[0].tolist() == [1]


def test_a_query_that_stands_in_the_database_is_junk_for_itself(tmp_path):
    text = HEADER + "a.jpg,x,query,,,,,g\n./a.jpg,x,database,,,,,\nb.jpg,x,database,,,,,\n"
    found = load_manifest(manifest(tmp_path, text))
    assert found.truth.junk[0].tolist() == [0] and found.truth.easy[0].tolist() == [1]


texts = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Z")), min_size=1, max_size=5)
boxes = st.none() | st.tuples(*[st.integers(0, 3)] * 2, *[st.integers(4, 8)] * 2)
rows = st.lists(st.tuples(texts, st.sampled_from(["query", "database", "both"]), boxes), max_size=8)


@given(rows)
@settings(max_examples=50, deadline=None)
def test_manifest_round_trip(tmp_path_factory, rows):
    root = tmp_path_factory.mktemp("m")
    rows = [("x", "query", None), ("x", "database", None), *rows]
    write_images(root, *[f"{i}.png" for i in range(len(rows))])
    table = pd.DataFrame(
        [(f"{i}.png", label, role, *(b or [None] * 4)) for i, (label, role, b) in enumerate(rows)],
        columns=["path", "label", "role", "x1", "y1", "x2", "y2"],
    )
    table[["x1", "y1", "x2", "y2"]] = table[["x1", "y1", "x2", "y2"]].astype("Int64")
    table.to_csv(root / "m.csv", index=False)
    table.to_parquet(root / "m.parquet")
    csv, parquet = load_manifest(root / "m.csv"), load_manifest(root / "m.parquet")
    stands = [i for i, r in enumerate(rows) if r[1] != "query"]
    asks = [i for i, r in enumerate(rows) if r[1] != "database"]
    for found in (csv, parquet):
        assert found.labels == [rows[i][0] for i in stands]
        assert found.boxes == [rows[i][2] for i in asks]
        for q, i in enumerate(asks):
            right = [n for n, j in enumerate(stands) if rows[j][0] == rows[i][0] and j != i]
            assert found.truth.easy[q].tolist() == right


# ---- the revisited layout

GND = {
    "imlist": ["a", "sub/b", "c"],
    "qimlist": ["q"],
    "gnd": [{"bbx": np.array([1.5, 1, 4, 5]), "easy": [0], "hard": [1], "junk": [2]}],
}


def revisited(root: Path, change: dict, name: str = "gnd_t.pkl") -> Path:
    write_images(root / "jpg", "a.jpg", "sub/b.JPG", "c.png", "q.jpg")
    file = root / name
    file.write_bytes(pickle.dumps(GND | change))
    return file


def test_revisited(tmp_path):
    revisited(tmp_path, {})
    found = load_dataset(tmp_path)
    assert found.name == "t" and found.boxes == [(1.5, 1.0, 4.0, 5.0)] and found.truth.graded
    assert [p.name for p in found.images] == ["a.jpg", "b.JPG", "c.png"]


def test_revisited_ungraded(tmp_path):
    gnd = [{"bbx": None, "ok": np.array([0, 1]), "junk": []}]
    found = load_revisited(revisited(tmp_path, {"gnd": gnd}))
    assert found.truth.protocols == ("all",) and found.truth.easy[0].tolist() == [0, 1]
    assert found.boxes == [None]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"imlist": None}, "no list 'imlist'"),
        ({"qimlist": "q"}, "no list 'qimlist'"),
        ({"gnd": []}, "gnd has 0 entries, but qimlist 1"),
        ({"gnd": [None]}, "query 0 has no list 'ok'"),
        ({"gnd": [{"easy": [0], "junk": []}]}, "query 0 has no list 'hard'"),
        ({"gnd": [{"easy": [0], "hard": [], "junk": 3}]}, "query 0 has no list 'junk'"),
        ({"gnd": [{"ok": [0], "junk": [], "bbx": [1, 2]}]}, "query 0: bbx: a box is four"),
        ({"gnd": [{"ok": [3], "junk": []}]}, "position 3 points past the database of 3"),
        ({"gnd": [{"ok": [-1], "junk": []}]}, "position -1 is negative"),
        ({"gnd": [{"ok": [0.5], "junk": []}]}, "whole numbers"),
        ({"gnd": [{"ok": [[0], [1, 2]], "junk": []}]}, "ok, junk are lists of positions"),
        ({"gnd": [{"ok": [0], "junk": [0]}]}, "listed twice"),
        ({"imlist": ["a", "sub/b", 7]}, "imlist holds 7, not the name"),
        ({"imlist": ["a", "sub/b", "z"]}, "1 of 4 image files are missing: .*jpg/z.jpg"),
    ],
)
def test_revisited_refuses(tmp_path, change, message):
    with pytest.raises((DatasetError, TruthError), match=message):
        load_dataset(revisited(tmp_path, change))


def test_revisited_names_that_are_not_clear(tmp_path):
    revisited(tmp_path, {})
    revisited(tmp_path, {}, "gnd_u.pkl")
    with pytest.raises(DatasetError, match="gnd_t.pkl, gnd_u.pkl: give the path of one"):
        load_dataset(tmp_path)
    write_images(tmp_path / "jpg", "a.png")
    with pytest.raises(DatasetError, match="have one name"):
        load_dataset(tmp_path / "gnd_u.pkl")


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def bites(trace: Path) -> dict[str, bytes]:
    "Pickles that write a file when they are run."
    code = f"open({str(trace)!r}, 'w')"
    return {
        "exec": pickle.dumps(Call(exec, code)),
        "eval, old": pickle.dumps(Call(eval, code), 0),
        "system": pickle.dumps(Call(os.system, f"touch {trace}")),
        "deep": pickle.dumps(GND | {"imlist": [np.array([Call(exec, code)], object)]}),
        "by name": b"cos\nsystem\n.",
        "dotted": b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__class__.\x93.",
        "builtins": b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
        "numpy's own": b"cnumpy.testing._private.utils\nrunstring\n(S'1'\ndtR.",
        "import": b"cantigravity\nfly\n.",
        "extension": b"\x80\x04\x82\x01.",
        "persistent": b"\x80\x04Pabc\n.",
    }


@pytest.mark.parametrize("name", bites(Path("x")))
def test_pickles_do_not_run(tmp_path, name):
    trace = tmp_path / "trace"
    file = tmp_path / "gnd_x.pkl"
    file.write_bytes(bites(trace)[name])
    with pytest.raises(DatasetError, match="gnd_x.pkl"):
        load_dataset(file)
    assert not trace.exists() and "antigravity" not in sys.modules


def test_pickles_cannot_change_what_they_may_use(tmp_path):
    file = tmp_path / "x.pkl"
    for module, name in [("numpy._core.numeric", "_frombuffer"), ("_codecs", "encode")]:
        for state in ({"x": 1}, (None, {"__call__": 1})):
            build = pickle.dumps(state, 2)[2:-1]
            file.write_bytes(b"\x80\x02c" + f"{module}\n{name}\n".encode() + build + b"b.")
            with pytest.raises(DatasetError):
                read_pickle(file)


@given(st.binary(max_size=60))
@example(b"")
@example(pickle.dumps(GND)[:-5])
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_value_or_one_error(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "fuzz.pkl"
    file.write_bytes(content)
    try:
        read_revisited(file)
    except (DatasetError, TruthError) as e:
        assert "fuzz.pkl" in str(e)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol(tmp_path, protocol):
    given_ = [np.arange(6).reshape(2, 3), np.asfortranarray(np.eye(3)), np.float32(2), np.int64(3)]
    file = tmp_path / "x.pkl"
    file.write_bytes(
        pickle.dumps([*given_, {"塔": {1, 2}}, b"\xff", np.array(["a", "é"])], protocol)
    )
    back = read_pickle(file)
    for a, b in zip(given_, back, strict=False):
        np.testing.assert_array_equal(a, b)
    assert back[4] == {"塔": {1, 2}} and back[5] == b"\xff" and back[6].tolist() == ["a", "é"]


@pytest.mark.skipif("IMRET_REVISITED_GND" not in os.environ, reason="IMRET_REVISITED_GND not set")
@pytest.mark.parametrize("name, n", [("roxford5k", 4993), ("rparis6k", 6322)])
def test_real_revisited(name, n):
    found = read_revisited(Path(os.environ["IMRET_REVISITED_GND"], f"gnd_{name}.pkl"))
    assert (len(found.imlist), len(found.qimlist), len(found.boxes)) == (n, 70, 70)
    assert found.truth.graded and len(found.truth.group_names) == 24
    assert not set(found.qimlist) & set(found.imlist)


# ---- geometry

sizes = st.tuples(st.integers(20, 400), st.integers(20, 400))
numbers = st.floats(-60, 60)
quads = st.lists(st.tuples(numbers, numbers), min_size=4, max_size=4)
BOX = (100.0, 50.0, 260.0, 170.0)


def make_quad(shifts) -> np.ndarray:
    "A convex quadrilateral near the box."
    quad = box_corners((40, 0, 300, 220)) + np.array(shifts)
    edges = np.roll(quad, -1, 0) - quad
    turns = np.cross(np.c_[edges, [0] * 4], np.c_[np.roll(edges, -1, 0), [0] * 4])[:, 2]
    assume((turns > 1000).all())
    return quad


@given(quads, sizes)
@settings(deadline=None)
def test_homography_sends_corners_and_comes_back(shifts, size):
    quad = make_quad(shifts)
    h = quad_homography(quad, size)
    np.testing.assert_allclose(project(h, quad), box_corners((0, 0, *size)), atol=1e-6)
    inner = quad.mean(0) + (quad - quad.mean(0)) * 0.5
    np.testing.assert_allclose(project(np.linalg.inv(h), project(h, inner)), inner, atol=1e-6)


@given(quads, sizes, quads, sizes)
@settings(deadline=None)
def test_homographies_compose(first, size, second, size2):
    a, b = quad_homography(make_quad(first), size), quad_homography(make_quad(second), size2)
    points = make_quad(first).mean(0) + np.array([[0, 0], [10, 0], [0, 10], [7, 3]])
    assume(np.abs((np.c_[project(a, points), np.ones(4)] @ b.T)[:, 2]).min() > 1e-3)
    np.testing.assert_allclose(
        project(b @ a, points), project(b, project(a, points)), rtol=1e-5, atol=1e-4
    )


@given(quads, sizes, st.sampled_from([(0, 0), (100_000, 5_000)]))
@settings(deadline=None)
def test_visible_fraction_is_the_share_of_points_that_land(shifts, size, offset):
    quad = make_quad(shifts) + offset
    box = tuple(np.add(BOX, offset * 2))
    h = quad_homography(quad, size)
    grid = (np.stack(np.meshgrid(np.arange(100), np.arange(100)), -1).reshape(-1, 2) + 0.5) / 100
    landed = project(h, grid * np.subtract(box[2:], box[:2]) + box[:2])
    share = ((landed >= 0) & (landed <= size)).all(1).mean()
    assert abs(visible_fraction(h, size, box) - share) < 0.02


def test_visible_fraction_of_nothing_and_all():
    whole = quad_homography(box_corners((0, 0, 500, 400)), (250, 200))
    assert visible_fraction(whole, (250, 200), BOX) == 1
    assert visible_fraction(whole, (250, 200), (500, 0, 600, 100)) == 0
    assert visible_fraction(whole, (250, 200), (700, 0, 800, 100)) == 0


@given(st.sampled_from(list(AMOUNTS)), st.sampled_from(["easy", "hard"]), st.integers(0, 10**6))
@settings(deadline=None)
def test_every_view_shows_enough_of_its_box(kind, strength, seed):
    view = plan_view(kind, strength, BOX, (400, 300), np.random.default_rng(seed))
    low, high = AMOUNTS[kind][strength]
    assert low <= view.amount <= high
    shown = visible_fraction(view.homography, view.size, BOX)
    assert shown >= (0.7 if strength == "easy" else 0.4)


def test_pixels_lie_where_the_homography_says():
    photo = np.full((300, 400, 3), 128, np.uint8)
    photo[100:110, 200:210] = 255
    for seed in range(8):
        kind = ("rotation", "perspective", "crop", "jpeg")[seed % 4]
        view = plan_view(kind, "easy", (150, 60, 270, 160), (400, 300), np.random.default_rng(seed))
        pixels = np.asarray(Image.open(io.BytesIO(render_view(photo, view))))
        ys, xs = np.nonzero(pixels.mean(2) > pixels.mean() + 40)
        found = np.array([xs.mean() + 0.5, ys.mean() + 0.5])
        expected = project(view.homography, [(205, 105)])[0]
        assert np.abs(found - expected).max() < 1.5, (kind, found, expected)


# ---- the photos set, with three photographs so that it is made quickly

SMALL = """
import sys
import imret.datasets.photos as m
m.REGIONS = dict(list(m.REGIONS.items())[:3])
found = m.load_photos(sys.argv[1], n_jobs=int(sys.argv[2]), progress=False)
import hashlib
files = b"".join(p.read_bytes() for p in found.images + sorted(set(found.queries)))
print(m.plan_checksum(found), hashlib.sha256(files).hexdigest(), len(found.images))
"""


def small(root: Path, n_jobs: int = 1, wait: bool = True):
    run = subprocess.Popen(
        [sys.executable, "-c", SMALL, str(root), str(n_jobs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return said(run) if wait else run


def said(run: subprocess.Popen) -> str:
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    return out


def test_photos_are_the_same_in_each_process(tmp_path):
    one, two = small(tmp_path / "1", 1), small(tmp_path / "2", 2)
    assert one == two == small(tmp_path / "1")
    assert int(one.split()[-1]) == 3 * (2 * 14 + 4)


def test_photos_made_by_two_at_once(tmp_path):
    runs = [small(tmp_path, wait=False) for _ in range(3)]
    assert len({said(r) for r in runs}) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["photos-v1"]


def test_photos_killed_while_made(tmp_path):
    run = small(tmp_path, wait=False)
    until = time.time() + 60
    while not list(tmp_path.glob(".photos-v1.*/database/*/*.jpg")) and time.time() < until:
        assert run.poll() is None, run.communicate()
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    (half,) = tmp_path.iterdir()
    assert half.name.startswith(".photos-v1.")
    os.utime(half, (0, 0))
    assert small(tmp_path) == small(tmp_path / "fresh")
    assert {p.name for p in tmp_path.iterdir()} == {"photos-v1", "fresh"}


def test_photos_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="set IMRET_DATA to a folder that can be written"):
        load_photos(tmp_path / "file")


def test_photos_damaged(tmp_path):
    small(tmp_path)
    table = tmp_path / "photos-v1" / "views.csv"
    with pytest.raises(DatasetError, match="delete it"):
        load_photos(tmp_path)  # three photographs only
    for content in ("", "a,b\n1,2\n"):
        table.write_text(content)
        with pytest.raises(DatasetError, match="delete it"):
            load_photos(tmp_path)


def test_photos_plan():
    found = load_dataset("photos")
    assert plan_checksum(found) == CHECKSUM
    assert len(found.images) == 594 and len(found.queries) == 37
    megabytes = sum(p.stat().st_size for p in {*found.images, *found.queries}) / 1e6
    assert megabytes < 25
    for box, query in zip(found.boxes, found.queries, strict=True):
        with Image.open(query) as image:
            assert box[2] <= image.width and box[3] <= image.height
