"""Sets of classes and of cars: small sets in the official layouts, and their corrupted twins.

Layouts as described by the README of https://data.caltech.edu/records/65de6-vp158 (birds), the page
http://vision.stanford.edu/aditya86/ImageNetDogs/ (dogs), the README of
https://github.com/rksltnl/Deep-Metric-Learning-CVPR16 (products), and the README in the archive of
https://mmlab.ie.cuhk.edu.hk/datasets/comp_cars/ (cars)."""

import itertools
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from imret.core import DatasetError
from imret.datasets import check_dataset, find_card, get_dataset, list_datasets, load_dataset
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
from imret.datasets.compcars import (
    REAR,
    car_tuples,
    check_compcars,
    load_compcars,
    read_compcars,
    read_compcars_surveillance,
    unify_classes,
    validation_split,
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
    message = "8 images, not 120,053; 4 classes, not 22,634; 4 train, .*; 2 test classes, not 11,3"
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


# ---- cars

VIEWS = [4, 1, 3, 2, 5, 1, -1]


def write_label(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def cars(tmp_path):
    "Models 21, 3 and 1035, of each all views; on the road 1035 and 7, two train and one test."
    folder = tmp_path / "compcars"
    for make, model in ((9, 21), (78, 1035), (78, 3)):
        for k, view in enumerate(VIEWS[::-1]):
            place = f"{make}/{model}/unknown/car 塔 {6 - k}"
            touch(folder / "data/image" / f"{place}.jpg")
            write_label(folder / "data/label" / f"{place}.txt", f"{view}\n1\n1 1 9.5 8 \n")
    road = folder / "sv_data"
    cells = np.empty((2, 3), object)
    cells[:] = [["BMW", "BMW X5", 1035], ["Audi", "Audi A3", 7]]
    for part, names in (("train", ["2/b.jpg", "1/a.jpg"]), ("test", ["1/c d.jpg"])):
        for name in names:
            touch(road / "image" / name)
        (road / f"{part}_surveillance.txt").write_text("\n".join(names) + "\n")
    savemat(road / "sv_make_model_name.mat", {"sv_make_model_name": cells})
    return folder


def test_cars(cars, tmp_path):
    data = read_compcars(tmp_path)
    columns = ["Path", "FileName", "View Point", "Year", "CarMake", "Class", "Index"]
    assert data.details.columns.tolist() == columns
    assert data.details["View Point"].tolist() == [1] * 6 + [4] * 3
    assert data.details["Class"].tolist() == [1035, 1035, 3, 3, 21, 21, 1035, 3, 21]
    assert data.labels == [2, 2, 0, 0, 1, 1, 2, 0, 1]
    assert data.details["Index"].tolist() == list(range(9))
    assert data.details["Path"][0] == "data/image/78/1035/unknown/car 塔 1.jpg"
    assert data.images[0] == cars / data.details["Path"][0]
    assert data.boxes[0] == (0, 0, 9.5, 8)
    assert len(data.splits["validation"].query) == 0  # no class of 58
    assert read_compcars(tmp_path, (2,)).details["View Point"].tolist() == [2] * 3
    assert read_compcars(tmp_path, REAR).details["View Point"].tolist() == [2] * 3 + [5] * 3
    assert len(read_compcars(tmp_path, (-1, 1, 2, 3, 4, 5))) == 21
    (cars / "data/label/78/1035/unknown/car 塔 1.txt").write_text("1\r\n1\r\n0 1 7 8\r\n")
    assert read_compcars(tmp_path).boxes[0] == (0, 0, 7, 8)
    with pytest.raises(DatasetError, match="has no image of the views"):
        read_compcars(tmp_path, ())
    for part in ("front", "rear"):
        with pytest.raises(DatasetError, match="no query images|no database images"):
            load_compcars(tmp_path, part)
    with pytest.raises(DatasetError, match="part='side' is not front, rear or surveillance"):
        load_compcars(tmp_path, "side")


def test_road(cars, tmp_path):
    road = read_compcars_surveillance(tmp_path)
    assert road.details["Class"].tolist() == [7, 1035, 1035] and road.labels == [0, 1, 1]
    assert road.splits["official"].query.tolist() == [2]
    assert [o.tolist() for o in load_compcars(tmp_path, "surveillance").truth.easy] == [[1]]
    front, both = unify_classes(read_compcars(tmp_path), road)
    assert both.labels == [1, 3, 3] and front.labels == [3, 3, 0, 0, 2, 2, 3, 0, 2]
    assert both.details["Class"].tolist() == [7, 1035, 1035] and "official" in both.splits


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "three lines are a view"),
        ("1\n1\n", "three lines are a view"),
        ("1\n1\n1 2 3\n", "three lines are a view"),
        ("front\n1\n1 1 2 2\n", "three lines are a view"),
        ("7\n1\n1 1 2 2\n", "three lines are a view.*view 7"),
        ("1\n1\n5 5 2 2\n", "is not 0 <= x1 < x2"),
    ],
)
def test_labels_of_cars_corrupted(cars, tmp_path, text, message):
    (cars / "data/label/78/3/unknown/car 塔 1.txt").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_compcars(tmp_path)


def test_cars_missing(cars, tmp_path):
    with pytest.raises(DatasetError, match="21 images, not 136,726; 2 makes, not 163; 3 models"):
        check_compcars(tmp_path)
    stray = touch(cars / "data/image/78/stray.jpg")
    with pytest.raises(DatasetError, match="stray.jpg is not MAKE/MODEL/YEAR/name.jpg below"):
        read_compcars(tmp_path)
    stray.unlink()
    label = cars / "data/label/78/3/unknown/car 塔 1.txt"
    label.unlink()
    for call in (read_compcars, check_compcars):
        with pytest.raises(DatasetError, match="car 塔 1.txt is not there: read the terms"):
            call(tmp_path)
    for call in (read_compcars, check_compcars, load_compcars):
        with pytest.raises(DatasetError, match="data/image is not there: read the terms at https"):
            call(tmp_path / "none")


def test_cars_counted(cars, tmp_path, monkeypatch):
    card = find_card("compcars")
    monkeypatch.setitem(card.counts, "images", 21)
    monkeypatch.setitem(card.counts, "makes", 2)
    monkeypatch.setitem(card.counts, "models", 3)
    said = "21 images, 2 makes, 3 models: as published; of the road 2 train, 1 test: counted"
    assert check_dataset("compcars", tmp_path) == said
    (cars / "sv_data/image/1/a.jpg").unlink()
    with pytest.raises(DatasetError, match="1/a.jpg is not there"):
        check_compcars(tmp_path)
    (cars / "sv_data").rename(cars / "elsewhere")
    assert check_compcars(tmp_path).endswith("as published; the part of the road is not there")


def test_road_corrupted(cars, tmp_path):
    road = cars / "sv_data"
    file = road / "test_surveillance.txt"
    for text, message in [
        ("3/a.jpg", "line 1: '3/a.jpg' is not NUMBER/name.jpg, a number from 1 to 2"),
        ("\n0/a.jpg", "line 2: '0/a.jpg' is not NUMBER"),
        ("a.jpg", "line 1: 'a.jpg' is not NUMBER"),
        ("1/", "line 1: '1/' is not NUMBER"),
        ("1/a.jpg", "sv_data/image/1/a.jpg is listed twice"),
    ]:
        file.write_text(text)
        with pytest.raises(DatasetError, match=message):
            read_compcars_surveillance(tmp_path)
    file.unlink()
    with pytest.raises(DatasetError, match="test_surveillance.txt is not there: read the terms"):
        read_compcars_surveillance(tmp_path)
    file.write_text("1/c d.jpg")
    for table, message in [
        ({"color_list": np.eye(3)}, "no table 'sv_make_model_name'; it has color_list"),
        ({"sv_make_model_name": np.eye(2)}, "column 3 must be the number of a model"),
        ({"sv_make_model_name": np.full((2, 3), 0.5)}, "column 3 must be the number of a model"),
    ]:
        savemat(road / "sv_make_model_name.mat", table)
        with pytest.raises(DatasetError, match=message):
            read_compcars_surveillance(tmp_path)


classes = st.lists(st.integers(0, 4), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(labels=classes, ratio=st.integers(2, 9), least=st.integers(1, 9), seed=st.integers(0, 3))
def test_validation_split(labels, ratio, least, seed):
    split = validation_split(labels, ratio, least, seed)
    assert sorted([*split.train, *split.query]) == list(range(len(labels)))
    for label in set(labels):
        n = labels.count(label)
        asked = [i for i in split.query if labels[i] == label]
        kept = [i for i in split.database if labels[i] == label]
        assert len(asked) == (n // ratio if n >= least else 0)
        assert len(kept) == (n - len(asked) if n >= least else 0)
    again = validation_split(labels, ratio, least, seed)
    assert np.array_equal(again.query, split.query)
    with pytest.raises(DatasetError, match="leaves no image to learn from"):
        validation_split(labels, 1)


@settings(max_examples=60, deadline=None)
@given(
    labels=classes,
    negatives=st.integers(0, 5),
    skip=st.integers(1, 3),
    drop=st.sets(st.integers(0, 39)),
)
def test_tuples(labels, negatives, skip, drop):
    "All pairs of a plain double loop; negatives of other classes, all different."
    among = [i for i in range(len(labels)) if i not in drop]
    pairs = [
        (i, j)
        for label in sorted({labels[i] for i in among})
        for ids in [[i for i in among if labels[i] == label]]
        for at, i in enumerate(ids)
        for j in ids[at + 1 :: skip]
    ]
    others = {p: sum(labels[i] != labels[p[0]] for i in among) for p in pairs}
    if any(n < negatives for n in others.values()):
        with pytest.raises(DatasetError, match="images of other classes, but"):
            car_tuples(labels, among, negatives, skip)
        return
    tuples = car_tuples(labels, among[::-1], negatives, skip)
    assert tuples.dtype == np.int64 and tuples.shape == (len(pairs), 2 + negatives)
    assert [tuple(t[:2]) for t in tuples.tolist()] == pairs
    for row in tuples.tolist():
        assert len(set(row)) == 2 + negatives and set(row) <= set(among)
        assert all(labels[i] != labels[row[0]] for i in row[2:])
    assert np.array_equal(tuples, car_tuples(labels, among, negatives, skip))


def test_every_image_is_a_negative():
    "The last too, and about as often as any other; another seed draws others."
    labels = [i // 20 for i in range(100)]
    tuples = car_tuples(labels, negatives=4)
    drawn = np.bincount(tuples[:, 2:].ravel(), minlength=100)
    assert len(tuples) == 5 * 190 and drawn.sum() == 950 * 4
    assert abs(drawn - 38).max() < 6 * np.sqrt(38)
    assert drawn[-1] > 0
    assert not np.array_equal(tuples, car_tuples(labels, seed=8))
    sets = {frozenset(t) for t in car_tuples([0] * 40 + [1, 1, 1, 2], negatives=2)[:, 2:].tolist()}
    assert sets >= {frozenset(p) for p in itertools.combinations(range(40, 44), 2)}
    with pytest.raises(DatasetError, match="skip=0"):
        car_tuples(labels, skip=0)
    for among in ([-1, 0], [0, 100]):
        with pytest.raises(DatasetError, match="but there are 100 labels"):
            car_tuples(labels, among)
    assert len(car_tuples(labels, [0, 1, 1, 0, 50], negatives=1)) == 1


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
    with pytest.raises(DatasetError, match="compcars cannot be downloaded by a program: read the"):
        get_dataset("compcars", tmp_path)
