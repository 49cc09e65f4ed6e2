"""Sets of classes and of cars: small sets in the official layouts, and their corrupted twins.

Layouts as described by the README of https://data.caltech.edu/records/65de6-vp158 (birds), the page
http://vision.stanford.edu/aditya86/ImageNetDogs/ (dogs) and the README of
https://github.com/rksltnl/Deep-Metric-Learning-CVPR16 (products)."""

import os
import pickle

import numpy as np
import pytest
from scipy.io import savemat

from imret.core import DatasetError
from imret.datasets import check_dataset, find_card, list_datasets, load_dataset
from imret.datasets.classes import (
    check_cub200,
    check_sop,
    check_stanford_dogs,
    load_cub200,
    load_sop,
    load_stanford_dogs,
    read_cub200,
    read_list,
    read_mat,
    read_sop,
    read_stanford_dogs,
)

KINDS = ["001.Great Auk", "002.Müllers_塔", "003.Jay", "004.Wren"]


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not opened by a loader")
    return path


# ---- birds


@pytest.fixture
def birds(tmp_path):
    "Four kinds of three birds, the first of each to learn from; names with spaces and others."
    folder = tmp_path / "cub200" / "CUB_200_2011"
    names = [f"{kind}/bird {k}.jpg" for kind in KINDS for k in range(3)]
    for name in names:
        touch(folder / "images" / name)
    columns = {
        "images": names,
        "image_class_labels": [int(name[:3]) for name in names],
        "train_test_split": [int(i % 3 == 0) for i in range(12)],
        "bounding_boxes": [f"{i}.0 1.0 {i + 1}.5 2.0" for i in range(12)],
        "classes": KINDS,
    }
    for file, rows in columns.items():
        text = "".join(f"{i} {row}\n" for i, row in enumerate(rows, 1))
        (folder / f"{file}.txt").write_text(text, "utf-8")
    return folder


def facts(data):
    "What is known of each image, by its name."
    kept = {i: part for part in ("train", "query") for i in getattr(data.splits["hashing"], part)}
    return {
        name: (label, box, number, kept[i])
        for i, (name, label, box, number) in enumerate(
            zip(data.details["image"], data.labels, data.boxes, data.details["class"], strict=True)
        )
    }


def edit(file, change):
    lines = file.read_text("utf-8").splitlines()
    file.write_text("\n".join(change(lines)), "utf-8")


def test_birds(birds):
    root = birds.parents[1]
    data = read_cub200(root)
    assert data.images[1] == birds / "images" / KINDS[0] / "bird 1.jpg"
    assert data.boxes[2] == (2, 1, 5.5, 3)
    assert data.splits["hashing"].train.tolist() == data.splits["hashing"].database.tolist()
    assert data.splits["hashing"].train.tolist() == [0, 3, 6, 9]
    assert data.splits["unseen"].train.tolist() == list(range(6))
    assert data.splits["unseen"].query.tolist() == list(range(6, 12))
    test = load_cub200(root, "hashing")
    assert [o.tolist() for o in test.truth.easy] == [[k] for k in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert len(load_cub200(root).images) == 6
    with pytest.raises(DatasetError, match="no split 'seen'; it has hashing, unseen"):
        load_cub200(root, "seen")


def test_birds_lie_in_the_set_itself(birds, tmp_path):
    (tmp_path / "flat").mkdir()
    birds.rename(tmp_path / "flat" / "cub200")
    assert len(read_cub200(tmp_path / "flat")) == 12


@pytest.mark.parametrize(
    "stem", ["images", "image_class_labels", "train_test_split", "bounding_boxes", "classes"]
)
def test_order_of_lines_means_nothing(birds, stem):
    before = facts(read_cub200(birds.parents[1]))
    edit(birds / f"{stem}.txt", lambda lines: ["", *lines[::-1], " "])
    assert facts(read_cub200(birds.parents[1])) == before
    first = read_cub200(birds.parents[1]).details["image"][0]
    assert first == (f"{KINDS[3]}/bird 2.jpg" if stem == "images" else f"{KINDS[0]}/bird 0.jpg")


@pytest.mark.parametrize(
    "stem, change, message",
    [
        ("images", lambda x: x[:-1], "image_class_labels.txt has image 12, .*images.txt does not"),
        ("image_class_labels", lambda x: x[1:], "images.txt has image 1, .*labels.txt does not"),
        ("image_class_labels", lambda x: ["1 9", *x[1:]], "a class must stand in classes.txt.* 9"),
        ("image_class_labels", lambda x: ["1 one", *x[1:]], "a class must stand .*'one'"),
        ("train_test_split", lambda x: ["1 2", *x[1:]], "has 0 or 1"),
        ("bounding_boxes", lambda x: ["1 1 2 3", *x[1:]], "four numbers"),
        ("bounding_boxes", lambda x: ["1 1 2 0 4", *x[1:]], "is not 0 <= x1 < x2"),
        ("images", lambda x: [*x, x[0]], "line 13: number 1 stands there twice"),
        ("images", lambda x: ["bird.jpg", *x], "line 1: 'bird.jpg' is not a number and what"),
        ("classes", lambda x: ["1", *x[1:]], "line 1: '1' is not a number and what"),
    ],
)
def test_birds_corrupted(birds, stem, change, message):
    edit(birds / f"{stem}.txt", change)
    with pytest.raises(DatasetError, match=message):
        read_cub200(birds.parents[1])


def test_birds_missing(birds, tmp_path):
    root = birds.parents[1]
    with pytest.raises(DatasetError, match="12 images, not 11,788; 4 classes, not 200; 4 train"):
        check_cub200(root)
    link = birds / "images" / KINDS[1] / "bird 1.jpg"
    link.rename(tmp_path / "away.jpg")
    link.symlink_to(tmp_path / "away.jpg")
    with pytest.raises(DatasetError, match="12 images, not 11,788"):
        check_cub200(root)
    (tmp_path / "away.jpg").unlink()
    with pytest.raises(DatasetError, match="1 of 12 images are missing, .*bird 1.jpg: `imret data"):
        check_cub200(root)
    with pytest.raises(DatasetError, match="image files are missing"):
        load_cub200(root, "hashing")
    (birds / "images.txt").write_bytes(b"1 \xff\xfe.jpg\n")
    with pytest.raises(DatasetError, match="images.txt is no text in UTF-8"):
        read_cub200(root)
    (birds / "classes.txt").unlink()
    (birds / "images.txt").unlink()
    with pytest.raises(DatasetError, match="images.txt is not there: `imret data get cub200`"):
        read_cub200(root)
    with pytest.raises(DatasetError, match="cub200 is not there: `imret data get cub200`"):
        load_dataset("cub200", root=tmp_path / "none")


# ---- dogs


def write_mat(file, names, labels, **others):
    cells = np.empty((len(names), 1), object)
    cells[:, 0] = names
    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, {"file_list": cells, "labels": np.array([labels]).T, **others})


@pytest.fixture
def dogs(tmp_path):
    "Two breeds of four dogs, every second one to learn from; the test list is reversed."
    folder = tmp_path / "stanford_dogs"
    names = [f"n0208{b}-Breed {b}/dog {k}.jpg" for b in (5, 6) for k in range(4)]
    for name in names[::-1]:
        touch(folder / "Images" / name)
    rows = list(zip(names, [1.0] * 4 + [2.0] * 4, strict=True))  # MATLAB's numbers are floats
    for stem, some in (("file", rows), ("train", rows[::2]), ("test", rows[1::2][::-1])):
        write_mat(folder / "lists" / f"{stem}_list.mat", *zip(*some, strict=True))
    return folder


def test_dogs(dogs, tmp_path):
    data = read_stanford_dogs(tmp_path)
    assert data.details["class"].tolist() == [0] * 4 + [1] * 4
    assert data.labels[0] == "n02085-Breed 5"
    assert data.splits["hashing"].query.tolist() == [1, 3, 5, 7]
    assert data.splits["unseen"].query.tolist() == [4, 5, 6, 7]
    assert len(load_stanford_dogs(tmp_path).queries) == 4
    with pytest.raises(DatasetError, match="8 images, not 20,580; 2 classes, not 120; 4 train"):
        check_stanford_dogs(tmp_path)
    for file in (dogs / "lists").iterdir():
        file.rename(dogs / file.name)  # as the archive has them
    (dogs / "lists").rmdir()
    assert read_stanford_dogs(tmp_path).labels == data.labels


def test_dogs_corrupted(dogs, tmp_path):
    a, b, c = (f"n02085-Breed 5/dog {k}.jpg" for k in range(3))
    file = dogs / "lists" / "train_list.mat"
    kept = file.read_bytes()
    for names, labels, message in [
        ([a], [1], "file_list.mat has image n02085-Breed 5/dog 2.jpg, .*does not"),
        ([a, a, b], [1, 1, 1], "3 names and 3 labels, which must be one each, and no name twice"),
        ([a, b, c], [1, 1], "3 names and 2 labels"),
        ([a, b, c], [1.5, 1, 1], "labels whole numbers"),
        ([a, b, 7], [1, 1, 1], "file_list holds names"),
    ]:
        write_mat(file, names, labels)
        with pytest.raises(DatasetError, match=message):
            read_stanford_dogs(tmp_path)
    rows = [
        r[:, 0].tolist() for r in read_mat(dogs / "lists/file_list.mat", ["file_list", "labels"])
    ]
    write_mat(file, rows[0][::2], [2, 1, 2, 2])
    with pytest.raises(DatasetError, match="0 images are in both lists, 1 have another breed"):
        read_stanford_dogs(tmp_path)
    write_mat(file, *rows)
    with pytest.raises(DatasetError, match="4 images are in both lists, 0 have another breed"):
        read_stanford_dogs(tmp_path)
    file.write_bytes(kept)
    read_stanford_dogs(tmp_path)
    file.unlink()
    with pytest.raises(DatasetError, match="train_list.mat is not there: `imret data get stan"):
        read_stanford_dogs(tmp_path)
    with pytest.raises(DatasetError, match="stanford_dogs is not there"):
        read_stanford_dogs(tmp_path / "none")


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def test_mat_is_no_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, data in {
        "pickle.mat": pickle.dumps(Trap()),
        "empty.mat": b"",
        "hdf5.mat": b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\x00\x02IM" + b"\x89HDF\r\n",
        "noise.mat": np.random.default_rng(0).bytes(4000),
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DatasetError, match=f"{name} cannot be read as a MATLAB file"):
            read_mat(tmp_path / name, ["labels"])
    assert not (tmp_path / "trapped").exists()
    savemat(tmp_path / "cut.mat", {"labels": np.arange(1000)})
    whole = (tmp_path / "cut.mat").read_bytes()
    (tmp_path / "cut.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="cut.mat cannot be read"):
        read_mat(tmp_path / "cut.mat", ["labels"])
    savemat(tmp_path / "other.mat", {"train_data": np.eye(2), "cube": np.zeros((2, 2, 2))})
    for field in ("labels", "cube"):
        with pytest.raises(DatasetError, match=f"no table '{field}'; it has train_data, cube"):
            read_mat(tmp_path / "other.mat", [field])
    with pytest.raises(DatasetError, match="none.mat cannot be read"):
        read_mat(tmp_path / "none.mat", ["labels"])


# ---- products and own lists

HEAD = "image_id class_id super_class_id path\n"


@pytest.fixture
def products(tmp_path):
    folder = tmp_path / "sop" / "Stanford_Online_Products"
    for split, classes in (("train", (1, 2)), ("test", (3, 10))):
        rows = [(c, f"mug_final/{c} 塔_{k}.JPG") for c in classes for k in range(2)]
        for _, name in rows:
            touch(folder / name)
        lines = "".join(f"{i} {c} 1 {name}\n" for i, (c, name) in enumerate(rows, 1))
        (folder / f"Ebay_{split}.txt").write_text(HEAD + lines, "utf-8")
    return folder


def test_products(products, tmp_path):
    data = read_sop(tmp_path)
    assert list(data.splits) == ["unseen"]
    assert data.images[-1] == products / "mug_final/10 塔_1.JPG"
    assert data.labels == ["1", "1", "2", "2", "3", "3", "10", "10"]
    assert [o.tolist() for o in load_sop(tmp_path).truth.easy] == [[1], [0], [3], [2]]
    message = (
        "8 images, not 120,053; 4 classes, not 22,634; 4 train, .*; 2 test classes, not 11,3"
    )
    with pytest.raises(DatasetError, match=message):
        check_sop(tmp_path)
    (products / "mug_final/10 塔_1.JPG").unlink()
    with pytest.raises(DatasetError, match="1 of 8 images are missing"):
        check_sop(tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "the first line names the columns"),
        ("1 1 1 a.jpg\n", "the first line names the columns, .* not '1 1 1 a.jpg'"),
        ("path class_id\n", "path last"),
        (HEAD + "1 3 a.jpg\n", "line 2: 3 columns, not 4"),
        (HEAD + "1 3 1 a.jpg\n2 3 1 a.jpg\n", "a.jpg is listed twice in .* [(]1 such[)]"),
        (HEAD + "1 1 1 b.jpg\n", "class 1 is in .*Ebay_train.txt and in .*Ebay_test.txt"),
    ],
)
def test_products_corrupted(products, tmp_path, text, message):
    (products / "Ebay_test.txt").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_sop(tmp_path)
    (products / "Ebay_test.txt").unlink()
    with pytest.raises(DatasetError, match="Ebay_test.txt is not there: `imret data get sop`"):
        read_sop(tmp_path)


def test_own_list(tmp_path):
    (tmp_path / "a.txt").write_text(
        "\ufeffclass_id colour path\r\nmug red a b.jpg \r\n\r\n", "utf-8"
    )
    (tmp_path / "b.txt").write_text("class_id path\nmug c.jpg\nmug d.jpg\n")
    data = read_list(tmp_path / "a.txt", tmp_path / "b.txt", "/photos", "hashing")
    assert [str(p) for p in data.images] == ["/photos/a b.jpg", "/photos/c.jpg", "/photos/d.jpg"]
    assert data.splits["hashing"].database.tolist() == [0]
    assert data.splits["hashing"].query.tolist() == [1, 2]
    assert data.details["colour"][0] == "red"
    with pytest.raises(DatasetError, match="say split='hashing'"):
        read_list(tmp_path / "a.txt", tmp_path / "b.txt")
    with pytest.raises(DatasetError, match="'seen' is not unseen or hashing"):
        read_list(tmp_path / "a.txt", tmp_path / "b.txt", split="seen")
    with pytest.raises(DatasetError, match="none.txt cannot be read"):
        read_list(tmp_path / "a.txt", tmp_path / "none.txt")


# ---- what is known by name


def test_names(tmp_path):
    assert {"cub200", "stanford_dogs", "sop"} <= set(list_datasets("classes"))
    for name in ("cub200", "stanford_dogs", "sop"):
        card = find_card(name)
        assert (
            card.page
            and card.files
            and card.counts["images"] == sum(card.counts[part] for part in ("train", "test"))
        )
        with pytest.raises(DatasetError, match=f"{name} is not there"):
            check_dataset(name, tmp_path)
