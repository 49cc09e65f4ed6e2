"""Landmark sets in the layout of their archives, and what is said where something in them is wrong.

Oxford5k and Paris6k: robots.ox.ac.uk/~vgg/data/oxbuildings and parisbuildings. ROxford5k and
RParis6k: cmp.felk.cvut.cz/revisitop. All names below are as the archives have them; the images are
tiny or empty files, since loading opens none."""

import dataclasses
import os
import pickle
import shutil
from pathlib import Path

import pytest

from imret.core import DatasetError, ImretError, TruthError
from imret.datasets import check_dataset, find_card, get_dataset, load_dataset, oxford_paris
from imret.datasets.oxford_paris import (
    PARIS_CORRUPT,
    check_oxford5k,
    check_roxford5k,
    load_oxford5k,
    load_paris6k,
    load_roxford5k,
    read_landmarks,
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
