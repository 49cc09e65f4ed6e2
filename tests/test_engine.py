"""The engine under kills, rivals and bad directories; the command's one line for every mistake."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from imret.cli import main
from imret.core import DatasetError, ImageError, StoreError
from imret.engine import SearchEngine

NAME = "efficientnet_lite0-gem-size:64"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "Twelve coloured pictures that a net can tell apart."
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for n in range(12):
        pixels = np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((10, 10, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"picture {n:02} é.png")
    return folder


@pytest.fixture(scope="module")
def built(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "index"
    return SearchEngine.build(photos, out, NAME, progress=False)


@pytest.fixture
def engine(built, tmp_path):
    "A copy of its own for each test."
    engine = SearchEngine.open(shutil.copytree(built.folder, tmp_path / "index"))
    engine.retriever = built.retriever
    return engine


def state(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_each_finds_itself(engine, photos):
    for path in sorted(photos.iterdir())[:4]:
        found = engine.search(path, k=1)
        assert found["path"][0] == str(path.resolve()) and found["score"][0] > 0.9999


def test_search_takes_arrays_and_pictures(engine, photos):
    path = sorted(photos.iterdir())[3]
    for query in (Image.open(path), np.asarray(Image.open(path)), str(path)):
        assert engine.search(query, k=1)["path"][0] == str(path.resolve())


def test_adding_twice_changes_nothing(engine, photos):
    before = engine.items.copy()
    assert engine.add(photos, progress=False) == 0
    assert engine.items.equals(before)


def test_a_changed_file_is_renewed_under_a_new_id(engine, photos, tmp_path):
    copy = tmp_path / "copy.png"
    Image.new("RGB", (40, 40), "red").save(copy)
    engine.add([copy], progress=False)
    old = engine.items.iloc[-1]
    Image.new("RGB", (60, 40), "blue").save(copy)
    assert engine.add([copy], progress=False) == 1
    new = engine.items.iloc[-1]
    assert new["path"] == old["path"] and new["id"] > old["id"] and len(engine) == 13


def test_removing_a_folder_removes_what_is_below(engine, photos):
    assert engine.remove(photos) == 12 and len(engine) == 0
    assert len(engine.search(np.zeros((32, 32, 3), np.uint8))) == 0
    assert engine.add(photos, progress=False) == 12
    assert engine.items["id"].min() == 12  # ids are never used twice


def test_ids_and_vectors_stay_together(engine, photos):
    paths = sorted(photos.iterdir())
    engine.remove([paths[0], paths[5], paths[11]])
    again = SearchEngine.open(engine.folder)
    for path in paths[1:5]:
        assert again.search(path, k=1)["path"][0] == str(path.resolve())


def test_two_objects_lose_nothing(engine, photos):
    paths = sorted(photos.iterdir())
    other = SearchEngine.open(engine.folder)
    engine.remove(paths[:2])
    other.remove(paths[2:4])
    assert len(other) == 8 and len(SearchEngine.open(engine.folder)) == 8


KILLED = """
import os, sys
from imret.engine import SearchEngine
import imret.files
real, count = os.replace, 0
def replace(a, b):
    global count
    count += 1
    if count == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    real(a, b)
imret.files.os.replace = replace
engine = SearchEngine.open(sys.argv[1])
engine.remove(engine.items["path"][:6])
"""


@pytest.mark.parametrize("step", [1, 2, 3])
def test_killed_while_saving_leaves_the_old_state(engine, step):
    command = [sys.executable, "-c", KILLED, engine.folder, str(step)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    again = SearchEngine.open(engine.folder)
    assert len(again) == 12
    assert again.remove(again.items["path"][:1]) == 1  # and it can go on
    assert len(state(again.folder)) == 4


def test_a_killed_build_goes_on(photos, tmp_path):
    code = "import sys; from imret.engine import SearchEngine as E; E.build(*sys.argv[1:])"
    out = tmp_path / "index"
    process = subprocess.Popen([sys.executable, "-c", code, photos, out], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "unfinished").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    if not (out / "engine.json").exists():  # it may just have finished
        assert len(SearchEngine.build(photos, out, progress=False)) == 12
    assert len(SearchEngine.open(out)) == 12


def test_broken_files_are_listed_and_forgotten_when_mended(engine, tmp_path):
    bad = tmp_path / "scan.jpg"
    bad.write_text("no picture")
    assert engine.add([bad], progress=False) == 0
    assert engine.skipped["path"].tolist() == [str(bad.resolve())]
    Image.new("RGB", (9, 9)).save(bad)
    assert engine.add([bad], progress=False) == 1 and len(engine.skipped) == 0


def test_only_broken_files_are_no_collection(tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(DatasetError, match="none of the 1 files is a picture: .*a.jpg"):
        SearchEngine.build(tmp_path, tmp_path / "index", progress=False)
    assert not (tmp_path / "index" / "engine.json").exists()


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda d: (d / "engine.json").unlink(), "holds no index"),
        (lambda d: (d / "engine.json").write_text("{"), "damaged"),
        (lambda d: (d / "engine.json").write_text("[]"), "damaged"),
        (lambda d: next(d.glob("vectors-*")).unlink(), "damaged"),
        (lambda d: next(d.glob("vectors-*")).write_bytes(b"x"), "damaged"),
        (lambda d: next(d.glob("items-*")).write_bytes(b"x"), "damaged"),
        (lambda d: np.save(next(d.glob("vectors-*")), np.zeros((3, 5), np.float32)), "damaged"),
    ],
)
def test_damaged_directories(engine, damage, message):
    damage(engine.folder)
    with pytest.raises(StoreError, match=message):
        SearchEngine.open(engine.folder)


def test_another_net(engine, photos):
    file = engine.folder / "engine.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fingerprint": "0" * 16}))
    with pytest.raises(StoreError, match="other weights"):
        SearchEngine.open(engine.folder).search(sorted(photos.iterdir())[0])


def test_where_not_to_build(photos, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(StoreError, match="other files"):
        SearchEngine.build(photos, tmp_path, progress=False)
    with pytest.raises(DatasetError, match="does not exist"):
        SearchEngine.build(tmp_path / "nowhere", tmp_path / "index", progress=False)
    assert state(tmp_path) == ["letter.txt"]


def test_a_query_that_is_no_picture(engine, tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(ImageError, match="a.jpg"):
        engine.search(tmp_path / "a.jpg")
    with pytest.raises(ImageError):
        engine.search(np.zeros((32, 32, 3), np.uint8), box=(5, 5, 5, 9))


@pytest.mark.parametrize(
    "args",
    [
        "nonsense",
        "search",
        "search {index}",
        "search {index} nowhere.png",
        "search nowhere {photo}",
        "search {index} {photo} -k 0",
        "search {index} {photo} -k many",
        "search {index} {photo} --box 1,2,3",
        "search {index} {photo} --box 900,900,950,950",
        "search {index} {photo} --colour red",
        "index {photos}",
        "index nowhere --out {new}",
        "index {photos} --out {index}",
        "index {photos} --out {new} --embedder no_such_net-gem",
        "index {photos} --out {new} --embedder efficientnet_lite0-gum",
        "index {photos} --out {new} --weights nowhere.pth",
        "add nowhere {photos}",
        "add {index} nowhere",
        "remove nowhere {photos}",
        "dedup",
        "dedup nowhere",
        "dedup {index} --threshold high",
        "dedup {index} --threshold 0 --out {new}",
        "dedup {index} --threshold 1.5 --out {new}",
        "dedup {index} --out {text}",
        "eval no-such-set",
        "eval {photos}",
        "eval photos --protocol harder",
        "eval photos --features nowhere.npy",
        "eval photos --features {text}",
        "eval photos --features {npy}",
        "eval photos --save-figures -1",
    ],
)
def test_every_mistake_is_one_line(args, engine, photos, tmp_path, capsys):
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "small.npy", np.zeros((3, 4)))
    places = {
        "index": engine.folder,
        "photos": photos,
        "photo": sorted(photos.iterdir())[0],
        "new": tmp_path / "new",
        "text": tmp_path / "text.npy",
        "npy": tmp_path / "small.npy",
    }
    capsys.readouterr()
    assert main([o.format(**places) for o in args.split()]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("imret: ") and printed.err.count("\n") == 1, printed.err
    assert not printed.out


def test_the_command_ends_with_the_code_and_without_a_traceback():
    done = subprocess.run(
        [Path(sys.executable).with_name("imret"), "search"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_help_is_quick_because_it_imports_no_torch():
    code = (
        "import sys; from imret.cli import main; main(['--help']); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "search" in done.stdout, done.stderr


def test_paths_with_blanks_and_accents(engine, capsys, monkeypatch, photos):
    monkeypatch.chdir(photos)
    assert main(["search", str(engine.folder), "picture 03 é.png", "-k", "1"]) == 0
    assert capsys.readouterr().out == "   1  1.0000  picture 03 é.png\n"


def test_dedup_lists_copies_and_touches_nothing(photos, tmp_path, capsys):
    scans = tmp_path / "scans"
    shutil.copytree(photos, scans)
    shutil.copy(scans / "picture 03 é.png", scans / "the same, again.png")
    SearchEngine.build(scans, tmp_path / "index", NAME, progress=False)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in scans.iterdir()}
    out = tmp_path / "new" / "list.csv"
    args = ["dedup", str(tmp_path / "index"), "--threshold", "0.99999", "--out", str(out)]
    assert main(args) == 0
    assert capsys.readouterr().out == f"1 group of 2 photographs: {out}\n"
    table = pd.read_csv(out)
    columns = ["group", "path", "similarity", "weakest", "weakest_a", "weakest_b"]
    assert table.columns.tolist() == columns
    names = ["picture 03 é.png", "the same, again.png"]
    assert [Path(p).name for p in table["path"]] == names
    assert [Path(table[c][0]).name for c in ("weakest_a", "weakest_b")] == names
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in scans.iterdir()} == before
    written = out.read_bytes()
    assert main(args) == 2 and "exists" in capsys.readouterr().err
    assert out.read_bytes() == written


def test_dedup_of_pictures_that_differ_writes_a_header(engine, tmp_path):
    out = tmp_path / "list.csv"
    assert main(["dedup", str(engine.folder), "--threshold", "1", "--out", str(out)]) == 0
    assert out.read_text() == "group,path,similarity,weakest,weakest_a,weakest_b\n"


def test_indexing_a_read_only_place_says_so(photos, tmp_path):
    if os.geteuid() == 0:
        out = Path("/proc/imret-index")  # not even root may write here
    else:
        out = tmp_path / "locked" / "index"
        out.parent.mkdir(mode=0o500)
    assert main(["index", str(photos), "--out", str(out)]) == 2
