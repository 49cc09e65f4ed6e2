"""Landmark sets in the layout of their archives, and what is said where something in them is wrong.

Oxford5k and Paris6k: robots.ox.ac.uk/~vgg/data/oxbuildings and parisbuildings. ROxford5k and
RParis6k: cmp.felk.cvut.cz/revisitop. All names below are as the archives have them; the images are
tiny or empty files, since loading opens none."""

import dataclasses
import hashlib
import io
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_server import LocalServer
from PIL import Image

from imret.core import DatasetError, GroundTruth, ImageError, ImretError, Ranking, TruthError
from imret.datasets import (
    RetrievalDataset,
    check_dataset,
    find_card,
    get_dataset,
    gldv2,
    load_dataset,
    oxford_paris,
)
from imret.datasets.gldv2 import load_gldv2, load_gldv2_clean, load_gldv2_train
from imret.datasets.oxford_paris import (
    PARIS_CORRUPT,
    check_oxford5k,
    check_roxford5k,
    load_oxford5k,
    load_paris6k,
    load_roxford5k,
    read_landmarks,
)
from imret.datasets.ukbench import check_ukbench, load_ukbench
from imret.datasets.uniform import (
    class_labels,
    copy_results,
    make_uniform,
    uniform_box,
    uniform_frame,
)

OXFORD = (
    "all_souls ashmolean balliol bodleian christ_church cornmarket hertford keble magdalen "
    "pitt_rivers radcliffe_camera"
).split()


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.jpg").touch()


def write_query(lab: Path, name: str, image: str, good=(), ok=(), junk=(), box="1 2.5 30 40"):
    "The four files of one query."
    lab.mkdir(parents=True, exist_ok=True)
    (lab / f"{name}_query.txt").write_text(f"{image} {box}\n")
    for kind, names in (("good", good), ("ok", ok), ("junk", junk)):
        (lab / f"{name}_{kind}.txt").write_text("".join(f"{n}\n" for n in names))


@pytest.fixture
def oxford(tmp_path) -> Path:
    "Two landmarks, one with two queries, in the layout of oxbuild_images and gt_files_170407."
    folder = tmp_path / "oxford5k"
    keble = [f"keble_{n:06d}" for n in (214, 3, 77)]
    camera = ["radcliffe_camera_000519", "oxford_000001"]
    touch(folder / "jpg", *keble, *camera, "worcester_000192")
    write_query(folder / "lab", "keble_1", f"oxc1_{keble[0]}", keble[:1], keble[1:2], keble[2:])
    write_query(folder / "lab", "keble_2", f"oxc1_{keble[1]}", keble[:1], keble[1:2], keble[2:])
    write_query(folder / "lab", "radcliffe_camera_1", f"oxc1_{camera[0]}", camera[:1], camera[1:])
    return tmp_path


def names(dataset, ids) -> list[str]:
    return [dataset.images[i].stem for i in ids]


# ---- Oxford5k


def test_oxford(oxford):
    found = load_oxford5k(oxford, complete=False)
    assert names(found, range(6)) == sorted(p.stem for p in (oxford / "oxford5k/jpg").iterdir())
    assert [p.stem for p in found.queries] == [
        "keble_000214",
        "keble_000003",
        "radcliffe_camera_000519",
    ]
    assert found.boxes == [(1, 2.5, 30, 40)] * 3
    assert names(found, found.truth.easy[0]) == ["keble_000003", "keble_000214"]
    assert names(found, found.truth.junk[0]) == ["keble_000077"]
    assert found.truth.group_names == ["keble", "radcliffe_camera"]
    assert found.truth.groups.tolist() == [0, 0, 1] and not found.truth.graded
    assert list(found.details["image"]) == names(found, range(6))


def test_oxford_folders_change_nothing(oxford):
    before = load_oxford5k(oxford, complete=False)
    jpg = oxford / "oxford5k" / "jpg"
    (jpg / "z away" / "塔").mkdir(parents=True)
    shutil.move(jpg / "keble_000003.jpg", jpg / "z away" / "塔")
    real = oxford / "elsewhere.jpg"
    shutil.move(jpg / "oxford_000001.jpg", real)
    (jpg / "oxford_000001.jpg").symlink_to(real)
    (oxford / "oxford5k" / "lab" / "._keble_1_query.txt").write_bytes(b"\x00")  # by a Mac
    after = load_oxford5k(oxford, complete=False)
    assert names(after, range(6)) == names(before, range(6))
    assert [a.tolist() for a in after.truth.easy] == [b.tolist() for b in before.truth.easy]


def test_oxford_without_lab(oxford):
    "The pickle of newer toolboxes: its own order, and the query in its own ok."
    shutil.rmtree(oxford / "oxford5k" / "lab")
    gnd = {
        "imlist": ["worcester_000192", "keble_000214", "keble_000003"],
        "qimlist": ["keble_000214"],
        "gnd": [{"bbx": [1, 2, 3, 4], "ok": [1, 2], "junk": []}],
    }
    (oxford / "oxford5k" / "gnd_oxford5k.pkl").write_bytes(pickle.dumps(gnd))
    found = load_oxford5k(oxford, complete=False)
    assert names(found, range(3)) == gnd["imlist"]
    assert found.truth.easy[0].tolist() == [1, 2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    "As many files as there are in Oxford5k, all empty."
    root = tmp_path_factory.mktemp("whole")
    lab = root / "oxford5k" / "lab"
    touch(root / "oxford5k" / "jpg", *(f"oxford_{n:06d}" for n in range(5063)))
    for i, landmark in enumerate(OXFORD):
        for n in range(1, 6):
            image = f"oxford_{5 * i + n:06d}"
            write_query(lab, f"{landmark}_{n}", f"oxc1_{image}", [image])
    return root


def test_whole_oxford(whole, monkeypatch):
    assert check_dataset("oxford5k", whole) == (
        "5,063 database, 55 queries, 11 landmarks: as published"
    )
    monkeypatch.setenv("IMRET_DATA", str(whole))
    assert len(load_dataset("oxford5k").images) == 5063
    extra = whole / "oxford5k" / "jpg" / "extra.jpg"
    extra.touch()
    for ask in (load_oxford5k, check_oxford5k):
        with pytest.raises(DatasetError, match="5,064 database, not 5,063"):
            ask(whole)
    extra.unlink()


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("keble_1_query.txt", "oxc1_keble_000214 1 2 3", "keble_1_query.txt.*not a query"),
        ("keble_1_query.txt", "oxc1_keble_000214 1 2 x 4", "keble_1_query.txt.*not a query"),
        ("keble_1_query.txt", "oxc1_keble_000214 9 2 3 4", "keble_1_query.txt.*x1 < x2"),
        ("keble_1_query.txt", "", "keble_1_query.txt.*not a query"),
        ("keble_1_query.txt", "oxc1_keble_9 1 2 3 4", "there is no image keble_9.jpg"),
        ("keble_1_good.txt", "keble_000214\nkeble_9", "keble_1_good.txt: 1 of its images.*keble_9"),
        ("keble_2_junk.txt", "keble_000003", "keble_2: keble_000003 is both right and junk"),
        ("keble_1_ok.txt", None, "keble_1_ok.txt cannot be read"),
        ("keble_1_ok.txt", b"\xff\xfe\x00", "keble_1_ok.txt cannot be read"),
    ],
)
def test_damaged_oxford(oxford, file, text, message):
    path = oxford / "oxford5k" / "lab" / file
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ImretError, match=message):
        load_oxford5k(oxford, complete=False)


def test_missing_oxford(oxford, tmp_path):
    lab, jpg = (oxford / "oxford5k" / name for name in ("lab", "jpg"))
    (jpg / "again").mkdir()
    shutil.copy(jpg / "keble_000003.jpg", jpg / "again")
    with pytest.raises(DatasetError, match="have one name"):
        load_oxford5k(oxford, complete=False)
    for file in lab.glob("*_query.txt"):
        file.unlink()
    shutil.rmtree(jpg / "again")
    with pytest.raises(DatasetError, match="holds no LANDMARK_N_query.txt"):
        load_oxford5k(oxford, complete=False)
    shutil.rmtree(lab)
    with pytest.raises(DatasetError, match="lab is not there: `imret data get oxford5k` downloads"):
        load_oxford5k(oxford, complete=False)
    shutil.rmtree(jpg)
    with pytest.raises(DatasetError, match="jpg is not there"):
        load_oxford5k(oxford, complete=False)


def test_an_image_listed_twice_counts_once(oxford):
    lab = oxford / "oxford5k" / "lab"
    (lab / "keble_1_ok.txt").write_text("keble_000214\n\nkeble_000003\nkeble_000003\n")
    found = load_oxford5k(oxford, complete=False)
    assert names(found, found.truth.easy[0]) == ["keble_000003", "keble_000214"]


# ---- Paris6k


def test_paris_leaves_out_what_is_corrupt(tmp_path):
    jpg, lab = (tmp_path / "paris6k" / name for name in ("jpg", "lab"))
    touch(jpg / "paris" / "louvre", "paris_louvre_000000", "paris_louvre_000136")
    touch(jpg / "paris" / "triomphe", "paris_triomphe_000867", "paris_triomphe_000001")
    write_query(
        lab,
        "louvre_1",
        "paris_louvre_000000",
        ["paris_louvre_000000", "paris_louvre_000136"],
        junk=["paris_triomphe_000867"],
    )
    found = load_paris6k(tmp_path, complete=False)
    assert names(found, range(2)) == ["paris_louvre_000000", "paris_triomphe_000001"]
    assert len(found.images) == 2
    assert found.truth.easy[0].tolist() == [0] and found.truth.junk[0].tolist() == []
    with pytest.raises(DatasetError, match="2 database, not 6,392"):
        load_paris6k(tmp_path)


def test_paris_without_its_corrupt_files(tmp_path):
    "Who has removed them already loads the same set."
    write_query(tmp_path / "lab", "a_1", "x", ["x", "paris_louvre_000136"])
    found = read_landmarks(tmp_path / "lab", ["x"], PARIS_CORRUPT)
    assert found.truth.easy[0].tolist() == [0]
    with pytest.raises(DatasetError, match="paris_louvre_000136"):
        read_landmarks(tmp_path / "lab", ["x"])


# ---- revisited


def write_revisited(root: Path, name: str, jpg: str, **change) -> Path:
    gnd = {
        "imlist": ["b_000002", "a_000001", "c_000003"],
        "qimlist": ["d_000004"],
        "gnd": [{"bbx": [1, 2, 30, 40], "easy": [2], "hard": [0], "junk": [1]}],
    }
    (root / name).mkdir(parents=True)
    touch(root / jpg, *gnd["imlist"], *gnd["qimlist"])
    file = root / name / f"gnd_{name}.pkl"
    file.write_bytes(pickle.dumps(gnd | change))
    return file


@pytest.mark.parametrize(
    "name, jpg",
    [
        ("roxford5k", "roxford5k/jpg"),
        ("roxford5k", "oxford5k/jpg"),
        ("rparis6k", "rparis6k/jpg/paris/louvre"),
        ("rparis6k", "paris6k/jpg/paris/louvre"),
    ],
)
def test_revisited(tmp_path, monkeypatch, name, jpg):
    write_revisited(tmp_path, name, jpg)
    monkeypatch.setenv("IMRET_DATA", str(tmp_path))
    found = load_dataset(name)
    assert names(found, range(3)) == ["b_000002", "a_000001", "c_000003"]
    assert {p.parent for p in found.images + found.queries} == {tmp_path / jpg}
    assert names(found, found.truth.protocol("medium")[0][0]) == ["c_000003", "b_000002"]
    assert found.boxes == [(1, 2, 30, 40)] and found.truth.graded
    with pytest.raises(DatasetError, match="3 database, not .*; 1 queries, not 70"):
        check_dataset(name)


def test_damaged_revisited(tmp_path, monkeypatch):
    class Surprise:
        def __reduce__(self):
            return exec, ("raise SystemExit",)

    trap = write_revisited(tmp_path, "roxford5k", "roxford5k/jpg", extra=Surprise())
    with pytest.raises(DatasetError, match="builtins.exec.*do not trust it"):
        load_roxford5k(tmp_path)
    shutil.rmtree(trap.parent)
    with pytest.raises(DatasetError, match="gnd_roxford5k.pkl is not there: `imret data get"):
        load_roxford5k(tmp_path)
    file = write_revisited(tmp_path, "roxford5k", "roxford5k/jpg")
    card = find_card("roxford5k")
    mine = dataclasses.replace(card, counts={"database": 3, "queries": 1})
    monkeypatch.setitem(oxford_paris.CARDS, "roxford5k", mine)
    with pytest.raises(DatasetError, match=r"gnd_roxford5k.pkl is not the authors' file"):
        check_roxford5k(tmp_path)
    (file.parent / "jpg" / "a_000001.jpg").unlink()
    with pytest.raises(DatasetError, match="1 of 4 image files are missing: .*a_000001.jpg"):
        load_roxford5k(tmp_path)
    short = write_revisited(tmp_path / "short", "roxford5k", "roxford5k/jpg", imlist=["b_000002"])
    with pytest.raises(TruthError, match="points past the database"):
        load_roxford5k(short.parents[1])


@pytest.mark.parametrize("have", [True, False])
def test_get_does_not_fetch_images_twice(tmp_path, monkeypatch, have):
    asked = []
    monkeypatch.setattr(oxford_paris, "fetch", lambda files, folder, progress: asked.extend(files))
    if have:
        touch(tmp_path / "oxford5k" / "jpg", "a")
    get_dataset("roxford5k", tmp_path)
    assert [f.url.rpartition("/")[2] for f in asked] == (
        ["oxbuild_images-v1.tgz"] * (not have) + ["gnd_roxford5k.pkl"]
    )


@pytest.mark.skipif("IMRET_REVISITED_GND" not in os.environ, reason="IMRET_REVISITED_GND not set")
@pytest.mark.parametrize("name, n", [("roxford5k", 4993), ("rparis6k", 6322)])
def test_real_truth(tmp_path, name, n):
    "The authors' files: their checksum, their counts, and no corrupt image among their names."
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(Path(os.environ["IMRET_REVISITED_GND"]) / f"gnd_{name}.pkl", folder)
    given = oxford_paris.read_revisited(folder / f"gnd_{name}.pkl")
    touch(folder / "jpg", *given.imlist, *given.qimlist)
    assert not PARIS_CORRUPT & {*given.imlist, *given.qimlist}
    assert len({*given.imlist, *given.qimlist}) == n + 70  # 5,063 and 6,392
    assert check_dataset(name, tmp_path).startswith(f"{n:,} database, 70 queries: as published")


# ---- copies of one size


@pytest.fixture
def plain(tmp_path) -> RetrievalDataset:
    "Two images of other proportions, one turned by its EXIF."
    folder = tmp_path / "plain"
    (folder / "ü b").mkdir(parents=True)
    Image.new("RGB", (60, 80), "red").save(folder / "tall.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees: 40 x 100
    Image.new("RGB", (100, 40), "blue").save(folder / "ü b" / "turned.jpg", exif=exif)
    images = [folder / "tall.png", folder / "ü b" / "turned.jpg"]
    boxes = [(10, 20, 40, 60), (0, 0, 99, 99)]
    return RetrievalDataset("plain", images, images, GroundTruth(positive=[[0], [1]]), boxes)


def test_uniform(plain, tmp_path):
    for shape, boxes in (
        ("stretch", [(20, 24, 80, 72), (0, 0, 120, 95.04)]),
        ("pad", [(36, 24, 72, 72), (41, 0, 79, 95.04)]),
    ):
        made = make_uniform(plain, tmp_path / shape, (120, 96), shape, progress=False)
        assert [p.relative_to(tmp_path / shape).as_posix() for p in made.images] == [
            "jpg/tall.jpg",
            "jpg/ü b/turned.jpg",
        ]
        for path in made.images:
            with Image.open(path) as image:
                assert image.size == (120, 96) and not image.getexif()
        np.testing.assert_allclose(made.boxes, boxes)
        assert made.truth is plain.truth
    with Image.open(made.images[1]) as image:  # upright in the middle, black beside it
        assert image.getpixel((60, 5))[2] > 200 and max(image.getpixel((20, 48))) < 20


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    st.tuples(st.integers(1, 1000), st.integers(1, 1000)),
)
def test_a_padded_image_lies_inside(source, size):
    x, y, w, h = uniform_frame(source, size, "pad")
    assert 0 <= x and 0 <= y and 1 <= w <= size[0] - x and 1 <= h <= size[1] - y
    assert (w, h)[0] == size[0] or h == size[1]
    whole = uniform_box((0, 0, *source), source, (x, y, w, h))
    np.testing.assert_allclose(whole, (x, y, x + w, y + h))


def test_uniform_goes_on_where_it_stopped(plain, tmp_path):
    broken = plain.images[1].read_bytes()
    plain.images[1].write_bytes(broken[:20])
    with pytest.raises(ImageError, match="turned.jpg cannot be read"):
        make_uniform(plain, tmp_path / "u", (12, 9), progress=False)
    copies = tmp_path / "u" / "jpg"
    assert [p.name for p in copies.rglob("*") if p.is_file()] == ["tall.jpg"]
    (copies / "tall.jpg").write_text("kept")
    plain.images[1].write_bytes(broken)
    make_uniform(plain, tmp_path / "u", (12, 9), progress=False)
    assert (copies / "tall.jpg").read_text() == "kept"
    assert sorted(p.name for p in (tmp_path / "u").iterdir()) == ["jpg", "uniform.json"]
    for change in ({"size": (12, 10)}, {"shape": "pad"}, {"quality": 90}):
        options = {"size": (12, 9), "progress": False} | change
        with pytest.raises(DatasetError, match="holds copies made with"):
            make_uniform(plain, tmp_path / "u", **options)


def test_uniform_refuses(plain, tmp_path):
    twins = [plain.images[0], plain.images[0].with_suffix(".bmp")]
    Image.new("RGB", (8, 8)).save(twins[1])
    both = RetrievalDataset("twins", twins, twins[:1], GroundTruth(positive=[[0]]))
    with pytest.raises(DatasetError, match="tall.bmp and .*tall.png would both be"):
        make_uniform(both, tmp_path / "u", progress=False)
    with pytest.raises(DatasetError, match="shape 'crop' is not one of stretch, pad"):
        make_uniform(plain, tmp_path / "u", shape="crop", progress=False)
    assert not (tmp_path / "u").exists()


def test_uni_oxford(oxford, monkeypatch):
    for path in (oxford / "oxford5k" / "jpg").iterdir():
        Image.new("RGB", (64, 48)).save(path)
    monkeypatch.setenv("IMRET_DATA", str(oxford))
    with pytest.raises(DatasetError, match="6 database, not 5,063"):
        load_dataset("uni_oxford")
    assert not (oxford / "uni-oxford").exists()
    made = load_dataset("uni_oxford", complete=False, progress=False)
    assert made.name == "uni_oxford" and len(made.images) == 6
    assert made.boxes[0] == (8, 20, 240, 320)
    padded = load_dataset("uni_oxford", complete=False, progress=False, shape="pad")
    assert padded.images[0].is_relative_to(oxford / "uni-oxford-pad")
    counts = {"database": 6, "queries": 3, "landmarks": 2}
    small = dataclasses.replace(find_card("oxford5k"), counts=counts)
    monkeypatch.setitem(oxford_paris.CARDS, "oxford5k", small)
    with pytest.raises(DatasetError, match="uni_oxford: 6 database, not 5,063"):
        check_dataset("uni_oxford")
    with Image.open(made.images[0]) as image:
        image.resize((12, 9)).save(made.images[0])
    with pytest.raises(DatasetError, match=r"has \(12, 9\) pixels"):
        check_dataset("uni_oxford")


def test_folders_to_look_through(plain, tmp_path):
    truth = GroundTruth(easy=[[0], [0, 1]], hard=[[], []], groups=["b", ("a", 1)])
    dataset = RetrievalDataset("x", plain.images, plain.queries, truth)
    assert class_labels(dataset) == ["b", "group-001"]
    one = GroundTruth(positive=[[0]], groups=["b"])
    alone = RetrievalDataset("x", plain.images, plain.queries[:1], one)
    assert class_labels(alone) == ["b", "useless"]
    ranking = Ranking([[1, 0], [1, -1]], [[0.5, 0.25], [1, -np.inf]])
    copy_results(dataset, ranking, tmp_path / "r")
    assert sorted(p.name for p in (tmp_path / "r" / "0001_turned").iterdir()) == [
        "000_1.0000_turned.jpg",
        "query_turned.jpg",
    ]
    with pytest.raises(DatasetError, match="is not empty"):
        copy_results(dataset, ranking, tmp_path / "r")
    with pytest.raises(DatasetError, match="1 rows in the ranking for 2 queries"):
        copy_results(dataset, ranking[:1], tmp_path / "s")


# ---- UKBench: archive.org/details/ukbench


def test_ukbench(tmp_path):
    full = tmp_path / "ukbench" / "full"
    touch(full, *(f"ukbench{n:05d}" for n in range(10200)))
    assert check_dataset("ukbench", tmp_path) == "10,200 images, 2,550 objects: as published"
    touch(full, "copy of ukbench00000")
    with pytest.raises(DatasetError, match="10,201 images, not 10,200"):
        check_dataset("ukbench", tmp_path)
    found = load_ukbench(tmp_path, first=1400)
    assert len(found.queries) == 1400 and len(found.truth.group_names) == 350
    (full / "ukbench00005.jpg").unlink()
    with pytest.raises(DatasetError, match="image files are missing: .*ukbench00005.jpg"):
        check_ukbench(tmp_path)
    assert load_ukbench(tmp_path, first=4).truth.easy[3].tolist() == [0, 1, 2, 3]
    assert load_ukbench(tmp_path, "junk", 4).truth.junk[3].tolist() == [3]


@pytest.mark.parametrize(
    "options", [{"itself": "no"}, {"first": 0}, {"first": 6}, {"first": 10204}]
)
def test_ukbench_refuses(tmp_path, options):
    with pytest.raises(DatasetError, match="itself=|first="):
        load_ukbench(tmp_path, **options)


# ---- Google Landmarks v2: github.com/cvdfoundation/google-landmark

INDEX = ["0a1b000000000001", "1234567890123456", "0a1b000000000003", "99e0000000000004"]
TEST = ["11e0000000000001", "2222222222222222", "33e0000000000003"]
SOLUTION = f"""id,images,Usage
{TEST[0]},{INDEX[3]} {INDEX[0]} {INDEX[3]},Private
{TEST[1]},None,Ignored
{TEST[2]},{INDEX[1]},Public
"""


def write_part(folder: Path, split: str, ids: list[str]) -> None:
    for i in ids:
        touch(folder / split / i[0] / i[1] / i[2], i)


@pytest.fixture
def landmarks(tmp_path) -> Path:
    "Four images to search in, three of the test, three to learn from."
    folder = tmp_path / "gldv2"
    tables = {
        "metadata/index.csv": "\n".join(["id", *INDEX, ""]),
        "metadata/test.csv": "\n".join(["id", *TEST, ""]),
        "ground_truth/retrieval_solution_v2.1.csv": SOLUTION,
        "metadata/train_clean.csv": f"landmark_id,images\n12,{INDEX[1]} {INDEX[0]}\n7,{TEST[1]}\n",
        "metadata/train.csv": f'id,url,landmark_id\n{TEST[1]},"http://塔,b",7\n{INDEX[0]},x,12\n',
    }
    for name, text in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    write_part(folder, "index", INDEX)
    write_part(folder, "test", TEST)
    write_part(folder, "train", [*INDEX[:2], TEST[1]])
    return tmp_path


def test_gldv2(landmarks, monkeypatch):
    found = load_gldv2(landmarks)
    assert [p.stem for p in found.images] == INDEX
    assert found.images[1] == landmarks / "gldv2/index/1/2/3/1234567890123456.jpg"
    assert [p.stem for p in found.queries] == [TEST[0], TEST[2]]
    assert [o.tolist() for o in found.truth.easy] == [[0, 3], [1]]
    monkeypatch.setenv("IMRET_DATA", str(landmarks))
    assert [p.stem for p in load_dataset("gldv2", usage="private").queries] == TEST[:1]
    with pytest.raises(DatasetError, match="4 index, not 761,757; 3 test, not 117,577; 2 queries"):
        check_dataset("gldv2")
    with pytest.raises(DatasetError, match="usage='all' is not one of both, public, private"):
        load_gldv2(usage="all")


@pytest.mark.parametrize("where", ["index", "."])
def test_gldv2_tables_beside_the_images(landmarks, where):
    folder = landmarks / "gldv2"
    shutil.move(folder / "metadata" / "index.csv", folder / where)
    assert len(load_gldv2(landmarks).images) == 4


def test_gldv2_order_is_the_tables(landmarks):
    table = landmarks / "gldv2" / "metadata" / "index.csv"
    table.write_text("\n".join(["id", *INDEX[::-1], ""]))
    found = load_gldv2(landmarks)
    assert [o.tolist() for o in found.truth.easy] == [[0, 3], [2]]
    assert [p.stem for p in found.images] == INDEX[::-1]


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("metadata/index.csv", "name\n1\n", "index.csv is no table with the columns id"),
        ("metadata/index.csv", "", "index.csv is no table"),
        ("metadata/index.csv", None, "metadata/index.csv is not there: `imret data get gldv2`"),
        ("metadata/index.csv", "\n".join(["id", *INDEX, INDEX[0]]), f"lists {INDEX[0]} twice"),
        ("metadata/index.csv", "\n".join(["id", *INDEX[:3]]), f"asks for {INDEX[3]}, which"),
        ("metadata/index.csv", "\n".join(["id", *INDEX, "../../../x"]), "is not the identifier"),
        ("metadata/index.csv", "\n".join(["id", *INDEX, "abc4"]), "1 of 7 .* missing: .*abc4.jpg"),
        ("ground_truth/retrieval_solution_v2.1.csv", "id,images,Usage\n1,None,Public\n", "no both"),
    ],
)
def test_damaged_gldv2(landmarks, file, text, message):
    path = landmarks / "gldv2" / file
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_gldv2(landmarks)


def test_missing_gldv2(landmarks):
    first = landmarks / "gldv2" / "test" / "1" / "1" / "e"
    shutil.rmtree(first)
    with pytest.raises(DatasetError, match="1 of 3 images are missing in .*test, first .*11e0"):
        check_dataset("gldv2", landmarks)
    shutil.rmtree(landmarks / "gldv2" / "test")
    with pytest.raises(DatasetError, match="gldv2/test is not there"):
        load_gldv2(landmarks)


def test_gldv2_training(landmarks, monkeypatch):
    clean, train = load_gldv2_clean(landmarks), load_gldv2_train(landmarks)
    assert [p.stem for p in clean.images] == [INDEX[1], INDEX[0], TEST[1]]
    assert clean.labels == [12, 12, 7] and train.labels == [7, 12]
    assert clean.part("train", "train").labels == clean.labels
    assert load_gldv2_clean(landmarks, leave_out={12}).labels == [7]
    with pytest.raises(DatasetError, match="has no landmark 13"):
        load_gldv2_clean(landmarks, leave_out={12, 13})
    with pytest.raises(DatasetError, match="gldv2_clean: 3 images, not 1,580,470; 2 landmarks"):
        check_dataset("gldv2_clean", landmarks)
    counts = {"images": 2, "landmarks": 2}
    monkeypatch.setitem(
        gldv2.CARDS, "gldv2_train", dataclasses.replace(find_card("gldv2_train"), counts=counts)
    )
    assert check_dataset("gldv2_train", landmarks) == "2 images, 2 landmarks: as published"
    (train.images[0]).unlink()
    with pytest.raises(DatasetError, match="1 of 2 images are missing"):
        check_dataset("gldv2_train", landmarks)
    (landmarks / "gldv2/metadata/train.csv").write_text("id,landmark_id\n0a1,x\n")
    with pytest.raises(DatasetError, match="landmark_id is a whole number"):
        load_gldv2_train(landmarks)


def test_get_gldv2(tmp_path, monkeypatch):
    "Two tar files a part from a server here; the second one's md5 is wrong at first."
    server = LocalServer()
    monkeypatch.setattr(gldv2, "_TARS", {"index": 2, "test": 1})
    monkeypatch.setattr(gldv2, "_BUCKET", server.address)
    card = find_card("gldv2")
    files = tuple(dataclasses.replace(f, url=f"{server.address}/{f.to}") for f in card.files)
    monkeypatch.setitem(gldv2.CARDS, "gldv2", dataclasses.replace(card, files=files))
    lists = {"index/images_000": INDEX[:2], "index/images_001": INDEX[2:], "test/images_000": TEST}
    for name, ids in lists.items():
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for i in ids:
                tar.addfile(tarfile.TarInfo(f"{i[0]}/{i[1]}/{i[2]}/{i}.jpg"))
        split, part = name.split("/")
        md5 = hashlib.md5(out.getvalue()).hexdigest()
        server.files[f"/{name}.tar"] = out.getvalue()
        server.files[f"/md5sum/{split}/md5.{part}.txt"] = f"{md5}  {part}.tar\n".encode()
    server.files["/metadata/index.csv"] = "\n".join(["id", *INDEX]).encode()
    server.files["/metadata/test.csv"] = "\n".join(["id", *TEST]).encode()
    server.files["/ground_truth/retrieval_solution_v2.1.csv"] = SOLUTION.encode()
    whole = server.files["/index/images_001.tar"]
    server.files["/index/images_001.tar"] = whole[:-1] + b"x"
    try:
        with pytest.raises(DatasetError, match="images_001.tar: the hash is"):
            get_dataset("gldv2", tmp_path, progress=False)
        server.files["/index/images_001.tar"] = whole
        get_dataset("gldv2", tmp_path, progress=False)
        assert [path for path, *_ in server.asked].count("/index/images_000.tar") == 1
    finally:
        server.close()
    assert [o.tolist() for o in load_gldv2(tmp_path).truth.easy] == [[0, 3], [1]]
    assert not list(tmp_path.rglob("*.tar"))
