"""The million distractors in the layout of their authors' program (revisitop/python/download.py).

A list, an image a line, and a folder `jpg/` that each of 100 archives is unpacked into."""

import tracemalloc
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imret.core import DatasetError, GroundTruth, l2_normalize
from imret.datasets import find_card, get_dataset, load_dataset
from imret.datasets.distractors import (
    Distractors,
    check_revisitop1m,
    load_distractors,
    open_shards,
    stream_scores,
    write_shards,
)
from imret.evaluation import evaluate

NAMES = ["0a1/0a1 b.jpg", "fff/Škoda.jpg", "0a0/東京.jpg", "0a1/a.jpg", "000/z.jpg"]


@pytest.fixture
def root(tmp_path):
    for name in NAMES:
        path = tmp_path / "revisitop1m/jpg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"photograph")
    text = "\n".join(NAMES) + "\n\n"
    (tmp_path / "revisitop1m/revisitop1m.txt").write_text(text, encoding="utf-8")
    return tmp_path


def test_positions_follow_the_list(root):
    got = load_distractors(root)
    assert len(got) == 5 and "5 images" in repr(got)
    for size in (1, 2, 5, 9):
        shards = list(got.shards(size))
        assert [n for n, _ in shards] == list(range(-(-5 // size)))
        assert [p.relative_to(got.folder).as_posix() for _, s in shards for p in s] == NAMES


def test_the_card_is_what_is_fetched():
    files = find_card("revisitop1m").files
    assert files[0].unpack is None and all(f.unpack == "jpg" for f in files[1:])
    assert [f.to for f in files[1:4]] == [f"revisitop1m.{i}.tar.gz" for i in (1, 2, 3)]
    assert len({f.to for f in files}) == 101


def test_missing_sets_say_how_they_are_had(tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match="revisitop1m.txt is not there: `imret data get"):
        load_distractors(tmp_path)
    monkeypatch.setenv("IMRET_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match="imret data get revisitop1m"):
        load_dataset("revisitop1m")


@pytest.mark.parametrize("text", [b"", b"\n\n", b"\xff\xfe\x00bad\xff"])
def test_a_list_that_is_none(root, text):
    (root / "revisitop1m/revisitop1m.txt").write_bytes(text)
    with pytest.raises(DatasetError, match="lists no image|cannot be read as a list"):
        load_distractors(root)


def test_the_check_names_what_is_missing(root):
    jpg = root / "revisitop1m/jpg"
    with pytest.raises(DatasetError, match="5 images, not 1,001,001"):
        check_revisitop1m(root, progress=False)
    (jpg / NAMES[2]).unlink()
    (jpg / NAMES[3]).write_bytes(b"")
    (jpg / NAMES[4]).unlink()
    (jpg / NAMES[4]).symlink_to("nowhere.jpg")
    with pytest.raises(DatasetError, match="3 of 5 listed images .*0a0/東京.jpg.*cut short"):
        check_revisitop1m(root, progress=False)
    (jpg / NAMES[4]).unlink()
    (jpg / NAMES[4]).symlink_to(jpg / NAMES[0])  # a link to an image is an image
    assert [p.name for p in load_distractors(root).missing(False)] == ["東京.jpg", "a.jpg"]


def test_a_million_names_in_little_memory(tmp_path):
    listing = tmp_path / "revisitop1m.txt"
    with open(listing, "w") as f:
        f.writelines(f"{i % 4096:03x}/{i:032x}.jpg\n" for i in range(1_001_001))
    tracemalloc.start()
    many = Distractors("many", tmp_path, listing)
    sizes = [len(paths) for _, paths in islice(many.shards(2_000), 3)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(many) == 1_001_001 and sizes == [2_000] * 3
    assert peak < 20e6  # the names alone are 41 MB, their paths a multiple


def test_shards_are_written_once_and_go_on(root, tmp_path):
    got, asked = load_distractors(root), []

    def embed(paths, stop=9):
        asked.append(len(paths))
        if len(asked) > stop:
            raise KeyboardInterrupt
        return np.full((len(paths), 3), len(asked), np.float64)

    with pytest.raises(KeyboardInterrupt):
        write_shards(got, tmp_path / "x", lambda p: embed(p, 1), 2, progress=False)
    with pytest.raises(DatasetError, match="2 of 5 rows: run `write_shards` to its end"):
        open_shards(tmp_path / "x", images=5)
    write_shards(got, tmp_path / "x", embed, 2, progress=False)
    assert asked == [2, 2, 2, 1]  # the first, the one that was stopped, the two that were left
    shards = open_shards(tmp_path / "x", images=5)
    assert [x.shape for x in shards] == [(2, 3), (2, 3), (1, 3)]
    assert all(isinstance(x, np.memmap) and x.dtype == np.float32 for x in shards)
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == [f"0000{i}.npy" for i in range(3)]


def test_shards_that_do_not_fit(root, tmp_path):
    got = load_distractors(root)
    with pytest.raises(DatasetError, match="shard 0 of revisitop1m: 2 images, but .*1, 3"):
        write_shards(got, tmp_path / "x", lambda p: np.zeros((1, 3)), 2, progress=False)
    with pytest.raises(DatasetError, match="holds none"):
        open_shards(tmp_path / "x")
    write_shards(got, tmp_path / "x", lambda p: np.zeros((len(p), 3)), 2, progress=False)
    middle = tmp_path / "x/00001.npy"
    good = middle.read_bytes()
    for bad, told in [
        (np.zeros((2, 4), np.float32), "does not go with"),
        (np.zeros((2, 3)), "float64"),
        (np.zeros(6, np.float32), "does not go with"),
        (np.array([None, None]), "is damaged"),
    ]:
        np.save(middle, bad)
        with pytest.raises(DatasetError, match=told):
            open_shards(tmp_path / "x")
    middle.write_bytes(good[:-8])
    with pytest.raises(DatasetError, match="00001.npy is damaged"):
        open_shards(tmp_path / "x")
    for rows in (1, 3):  # shorter, but not the last; longer than the first
        np.save(middle, np.zeros((rows, 3), np.float32))
        with pytest.raises(DatasetError, match="one size"):
            open_shards(tmp_path / "x")
    middle.unlink()
    with pytest.raises(DatasetError, match="00001.npy is missing"):
        open_shards(tmp_path / "x")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 7), max_size=4), st.integers(1, 9), st.integers(0, 99), st.booleans()
)
def test_a_stream_is_what_one_matrix_is(sizes, batch, seed, ties):
    random = np.random.default_rng(seed)
    queries = l2_normalize(random.normal(size=(5, 4)))
    parts = [random.normal(size=(n, 4)).astype(np.float32) for n in (12, *sizes)]
    if ties:
        parts = [np.round(p) for p in parts]
    blocks = list(stream_scores(queries, parts, batch))
    assert [len(b) for b in blocks] == [min(batch, 5 - i) for i in range(0, 5, batch)]
    truth = GroundTruth(easy=[[q] for q in range(5)], hard=[[5]] * 5, junk=[[6, 7]] * 5)
    whole = np.concatenate(blocks)
    np.testing.assert_allclose(whole, queries @ np.concatenate(parts).T, rtol=1e-5, atol=1e-6)
    for protocol in ("easy", "medium", "hard"):
        among = evaluate(blocks, truth, protocol)
        alone = evaluate(whole[:, :12], truth, protocol)
        assert among.per_query.equals(evaluate(whole, truth, protocol).per_query)
        assert (among.per_query["ap"] <= alone.per_query["ap"] + 1e-12).all()
        assert among.per_query["n_positive"].equals(alone.per_query["n_positive"])


def test_a_stream_of_other_descriptors():
    with pytest.raises(DatasetError, match="part 1 has shape .3, 5., but queries have 4"):
        next(stream_scores(np.zeros((2, 4)), [np.zeros((3, 4)), np.zeros((3, 5))]))


def test_get_goes_on_with_the_archive_it_stopped_at(tmp_path, monkeypatch):
    import io
    import sys
    import tarfile
    from dataclasses import replace

    from local_server import LocalServer

    from imret.datasets import RemoteFile, registry

    server = LocalServer()
    monkeypatch.setattr(sys.modules["imret.datasets.fetch"], "_PAUSE", 0.01)
    for i in (1, 2, 3):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            info = tarfile.TarInfo(f"00{i}/image.jpg")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
        server.files[f"/{i}.tar.gz"] = out.getvalue()
    server.refuse["/2.tar.gz"] = [404]
    files = [RemoteFile(f"{server.address}/{i}.tar.gz", unpack="jpg") for i in (1, 2, 3)]
    card = replace(find_card("revisitop1m"), files=tuple(files))
    monkeypatch.setitem(registry._CARDS, "revisitop1m", card)
    with pytest.raises(DatasetError, match="/2.tar.gz: the server answers 404"):
        get_dataset("revisitop1m", tmp_path, progress=False)
    get_dataset("revisitop1m", tmp_path, progress=False)
    server.close()
    assert [path for path, *_ in server.asked] == [f"/{i}.tar.gz" for i in (1, 2, 2, 3)]
    names = sorted(p.parent.name for p in (tmp_path / "revisitop1m/jpg").rglob("*.jpg"))
    assert names == ["001", "002", "003"]
