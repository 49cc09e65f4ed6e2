"""Looking through folders and writing sets out: what a notebook would not show."""

import numpy as np
import pytest
from PIL import Image

from imret.core import DatasetError, GroundTruth, Ranking
from imret.datasets import (
    RetrievalDataset,
    describe_images,
    load_revisited,
    write_pairs,
    write_revisited,
)
from imret.datasets.describe import Description


def picture(path, seed=0, size=(40, 30), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def turned(path):
    "A landscape that EXIF calls a portrait."
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(path, 7, exif=exif)


# ---- describing


def test_hundreds_in_several_threads_keep_their_order(tmp_path):
    for i in range(300):  # several blocks of work
        picture(tmp_path / f"{i % 3}" / f"{i:03}.png", seed=i % 290, size=(8 + i, 8))
    (tmp_path / "1" / "bad.jpg").write_bytes(b"no")
    for n_jobs in (1, 4):
        found = describe_images(tmp_path, n_jobs=n_jobs, progress=False)
        assert found.images == 301 and found.n_broken == 1
        assert found.broken["path"].tolist() == [tmp_path / "1" / "bad.jpg"]
        assert sorted(found.sizes[:, 0]) == list(range(8, 308))
        assert found.classes == {"0": 100, "1": 101, "2": 100}
        assert found.sample == sorted(found.sample) and len(found.sample) == 24


def test_names_are_kept_of_the_first_only(tmp_path, monkeypatch):
    monkeypatch.setitem(describe_images.__globals__, "NAMED", 3)
    for i in range(10):
        picture(tmp_path / f"{i}.png", seed=i // 2)
        (tmp_path / f"{i}.jpg").write_bytes(b"no")
    found = describe_images(tmp_path, progress=False)
    assert (found.n_broken, len(found.broken)) == (10, 3)
    assert (found.n_copies, found.n_groups, len(found.copies)) == (10, 5, 3)
    assert [p.name for p in found.copies["path"]] == ["0.png", "1.png", "2.png"]
    assert "10 files in 5 groups" in str(found)


def test_a_sample_takes_all_alike(tmp_path):
    files = [picture(tmp_path / f"{i}.png", seed=i) for i in range(12)]
    times = dict.fromkeys(files, 0)
    for seed in range(200):
        for path in describe_images(files, True, 3, seed, progress=False).sample:
            times[path] += 1
    assert all(30 <= n <= 75 for n in times.values())  # 50 expected


def test_turned_paged_and_strange(tmp_path):
    turned(tmp_path / "turned.jpg")
    pages = [Image.new("L", (5, 5), i) for i in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "塔 1.heic").touch()
    found = describe_images(tmp_path, progress=False)
    assert (found.turned, found.paged, found.others) == (1, 1, {".heic": 1})
    assert isinstance(found, Description)
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match="holds no image"):
        describe_images(tmp_path / "none", progress=False)


# ---- writing out


@pytest.fixture
def mixed(tmp_path):
    images = [
        picture(tmp_path / "in/a/1.jpg", 1),
        picture(tmp_path / "in/a/1.png", 2),
        turned(tmp_path / "in/b/塔.jpg"),
    ]
    truth = GroundTruth(positive=[[1], [2]], groups=["x", "y"])
    return RetrievalDataset("mixed", images, [images[0], images[2]], truth, [None, (1, 2, 20, 30)])


def test_pictures_come_upright_and_under_one_name_each(mixed, tmp_path):
    again = load_revisited(write_revisited(mixed, tmp_path / "out", progress=False))
    assert [p.stem for p in again.images] == ["1", "1-png", "塔"]
    assert again.images[0].read_bytes() == mixed.images[0].read_bytes()
    with Image.open(again.images[2]) as image:
        assert image.size == (30, 40) and image.getexif().get(0x0112, 1) == 1
    with Image.open(again.images[1]) as image:
        assert image.format == "JPEG"
    assert again.boxes == [(0, 0, 40, 30), (1, 2, 20, 30)]  # a whole image has a box now
    assert again.truth.group_names == ["x", "y"]


def test_an_interrupted_export_goes_on(mixed, tmp_path):
    file = write_revisited(mixed, tmp_path / "out", progress=False)
    before = file.read_bytes()
    file.unlink()
    (tmp_path / "out/jpg/a/1-png.jpg").unlink()
    assert write_revisited(mixed, tmp_path / "out", progress=False).read_bytes() == before


def test_an_unreadable_picture_is_named(mixed, tmp_path):
    mixed.images[1].write_bytes(b"no")
    with pytest.raises(DatasetError, match="1.png cannot be read"):
        write_revisited(mixed, tmp_path / "out", progress=False)


def test_pairs(mixed, tmp_path):
    ranking = Ranking([[0, 1, 2], [0, 2, -1]], [[3, 2, 1], [2, 1, -np.inf]])
    file = tmp_path / "pairs.txt"
    assert write_pairs(ranking, mixed, file) == 2  # not itself, and no pair twice
    assert file.read_text("utf-8").splitlines() == ["a/1.jpg a/1.png", "a/1.jpg b/塔.jpg"]
    with pytest.raises(DatasetError, match="image 3 of 3"):
        write_pairs(Ranking([[3], [0]], [[1], [1]]), mixed, file)


def test_a_blank_has_no_place_in_pairs(tmp_path):
    images = [picture(tmp_path / f"my {i}.jpg", i) for i in range(2)]
    data = RetrievalDataset("x", images, images[:1], GroundTruth(positive=[[1]]))
    with pytest.raises(DatasetError, match="'my 0.jpg' has a blank"):
        write_pairs(Ranking([[1]], [[1]]), data, tmp_path / "pairs.txt")
