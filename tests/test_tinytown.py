"""The rendered town: geometry against geometry, faults on the disk, the same town every time."""

import errno
import shutil

import numpy as np
import pytest

from imret.core import DatasetError
from imret.datasets import load_dataset, tinytown, tinytown_clips, town_photo
from imret.datasets.tinytown import (
    QUERY,
    TRAIN_SEED,
    Tinytown,
    plan_town,
    read_place,
    render_missing,
    render_place,
)
from imret.datasets.town_camera import Camera, first_hits
from imret.datasets.town_scene import LANDMARK, Town
from imret.datasets.town_truth import EASY, HARD, grade

SMALL = plan_town(3, 2, 3)


@pytest.fixture(scope="module")
def town():
    return load_dataset("tinytown")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    "Two landmarks and three distractor photos of another town."
    folder = tmp_path_factory.mktemp("towns") / "small"
    render_missing(folder, SMALL, render_place, 3, n_jobs=1, progress=False)
    return folder


# --- the set


def test_sizes(town):
    landmarks = town.details[town.details["landmark"] >= 0]
    views = landmarks.groupby("landmark").size()
    assert len(views) >= 120 and views.min() >= 12
    assert (town.details["landmark"] == -1).sum() >= 600
    assert len(town.queries) >= 60 and len(town.truth.group_names) == len(town.queries)


@pytest.mark.parametrize("path", ["nowhere/00.jpg", "lm0000/no-such.jpg", "", "lm0000"])
def test_a_path_that_is_no_photo_of_the_town(town, path):
    with pytest.raises(DatasetError, match=r"no photo of tinytown: its photos are lm0000/"):
        town.place_of(path)


def test_a_file_that_is_no_photo_of_the_place(town):
    place = town.place_of(town.queries[0])
    known = next(iter(place.views))
    for ask in (place.relation, place.matches, place.homographies):
        for files in ((known, "no.jpg"), ("no.jpg", known)):
            with pytest.raises(DatasetError, match=rf"{place.name} has no photo 'no.jpg'.*{known}"):
                ask(*files)


def test_truth_follows_its_rules(town):
    for q in range(0, len(town.queries), 7):
        place = town.place_of(town.queries[q])
        for kind in ("easy", "hard", "junk"):
            for i in getattr(town.truth, kind)[q]:
                image = town.images[i]
                assert image.parent == town.queries[q].parent
                assert grade(place.relation(QUERY, image.name), place.views[image.name]) == kind
    assert all(EASY[k] >= HARD[k] for k in ("overlap", "area", "share"))
    assert all(EASY[k] <= HARD[k] for k in ("angle", "farther", "closer"))


def test_every_photo_of_a_landmark_is_judged(town):
    for q, path in enumerate(town.queries):
        lists = town.truth.easy[q], town.truth.hard[q], town.truth.junk[q]
        judged = np.concatenate(lists)
        of_place = [i for i, p in enumerate(town.images) if p.parent == path.parent]
        assert sorted(judged) == of_place


def test_boxes_hold_what_is_seen(town):
    for q, path in enumerate(town.queries):
        place = town.place_of(path)
        view = place.views[QUERY]
        x1, y1, x2, y2 = town.boxes[q]
        assert 0 <= x1 < x2 <= view.camera.size[0] and 0 <= y1 < y2 <= view.camera.size[1]
        pixels, _ = view.camera.project(place.points[view.visible])
        inside = (pixels >= (x1 - 1, y1 - 1)).all(1) & (pixels <= (x2 + 1, y2 + 1)).all(1)
        assert inside.all()


def test_homographies_agree_with_points(town):
    for name in list(town.places)[:130:13]:
        place = town.places[name]
        files = list(place.views)
        for a, b in zip(files[:4], files[1:5], strict=True):
            here, there, planes = place.matches(a, b)
            for plane, h in place.homographies(a, b).items():
                on = planes == plane
                sent = np.c_[here[on], np.ones(on.sum())] @ h.T
                assert np.abs(sent[:, :2] / sent[:, 2:] - there[on]).max() < 1e-6


def test_relation_of_a_photo_to_itself(town):
    place = town.places["lm0003"]
    for file in place.views:
        r = place.relation(file, file)
        assert np.isclose(r.overlap, 1) and r.scale == 1 and r.angle < 1e-4


# --- the same every time


def test_not_a_matter_of_processes(small, tmp_path):
    render_missing(tmp_path, SMALL, render_place, 3, n_jobs=2, progress=False)
    for job in SMALL:
        a, b = read_place(small / job.name), read_place(tmp_path / job.name)
        assert a.boxes == b.boxes and a.crc32 == b.crc32
        assert np.array_equal(a.points, b.points)
        assert all(np.array_equal(a.views[f].visible, b.views[f].visible) for f in a.views)


def test_another_seed_is_another_town():
    a, b = Town(3).place(LANDMARK, 0), Town(4).place(LANDMARK, 0)
    assert a.points.shape != b.points.shape or not np.allclose(a.points, b.points)


def test_plans_extend():
    assert plan_town(TRAIN_SEED, 400)[:7] == plan_town(TRAIN_SEED, 7)


# --- geometry


def test_first_hits_against_a_slow_loop():
    "Each ray, each plane, by solving three equations."
    place = Town(5).place(LANDMARK, 2)
    planes = place.building.planes
    camera = Camera.look((12, -25, 1.7), (0, 0, 6), 300, (48, 36))
    rays = camera.pixel_rays(step=3).reshape(-1, 3).astype(float)
    index, steps = first_hits(camera.centre, rays, planes)
    for ray, i, step in zip(rays, index, steps, strict=True):
        best, which = np.inf, -1
        for k, plane in enumerate(planes):
            if plane.normal @ (camera.centre - plane.origin) <= 1e-6 or ray @ plane.normal >= 0:
                continue
            a = np.stack([ray, -plane.across, -plane.down], axis=1)
            if abs(np.linalg.det(a)) < 1e-9:
                continue
            far, s, t = np.linalg.solve(a, plane.origin - camera.centre)
            if 1e-6 < far < best and plane.solid(np.array([s]), np.array([t]))[0]:
                best, which = far, k
        assert which == i and (np.isinf(best) or np.isclose(best, step))


def test_picture_and_rays_show_one_world():
    "Where a ray meets something, the painted depth is the same, but for soft edges."
    town = Town(5)
    place = town.place(LANDMARK, 1)
    shot, _ = town_photo.take(town, LANDMARK, 1, 0, place)
    planes = town_photo._all_planes(place, shot)
    buffers = []
    paint = town_photo.Canvas

    class Kept(paint):
        def __init__(self, *args):
            super().__init__(*args)
            buffers.append(self.inverse_depth)

    town_photo.Canvas = Kept
    try:
        town_photo.photograph(town, place, shot)
    finally:
        town_photo.Canvas = paint
    rays = shot.camera.pixel_rays(step=6).reshape(-1, 3)
    _, steps = first_hits(shot.camera.centre, rays, planes)
    painted = buffers[0][::6, ::6].ravel()
    hit = np.isfinite(steps) & (painted > 0)
    agree = np.isclose(1 / painted[hit], steps[hit], rtol=0.02)
    assert hit.mean() > 0.3 and agree.mean() > 0.93


# --- faults


def test_interrupted_work_goes_on(tmp_path):
    def breaks(town, job, folder):
        if job.name == SMALL[1].name:
            raise OSError(errno.ENOSPC, "No space left on device")
        render_place(town, job, folder)

    with pytest.raises(DatasetError, match="No space left.*free space"):
        render_missing(tmp_path, SMALL[:2], breaks, 3, n_jobs=1, progress=False)
    there = [job.name for job in SMALL[:2] if (tmp_path / job.name).is_dir()]
    assert SMALL[1].name not in there
    times = {n: (tmp_path / n / "place.npz").stat().st_mtime_ns for n in there}
    render_missing(tmp_path, SMALL[:2], render_place, 3, n_jobs=1, progress=False)
    assert all((tmp_path / n / "place.npz").stat().st_mtime_ns == t for n, t in times.items())
    assert len(Tinytown("t", tmp_path, SMALL[:2]).queries) == 1


def test_a_half_rendered_place_is_not_there(tmp_path):
    job = SMALL[0]
    with pytest.raises(RuntimeError), tinytown.new_folder(tmp_path / job.name) as work:
        (work / "00.jpg").write_bytes(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="set IMRET_DATA"):
        tinytown.load_tinytown(tmp_path / "file", n_jobs=1, progress=False)


@pytest.mark.parametrize("seed", ["7", 7.0, -1, None, True])
def test_seed(seed, tmp_path):
    with pytest.raises(DatasetError, match="seed is a whole number from 0"):
        load_dataset("tinytown", seed=seed, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, 2001, -4, 3.5, "many"])
def test_size(size, tmp_path):
    with pytest.raises(DatasetError, match="size is"):
        load_dataset("tinytown_train", size=size, root=tmp_path)


def test_split_and_options(tmp_path):
    with pytest.raises(DatasetError, match="not one of train, validation, all"):
        load_dataset("tinytown_train", split="test", root=tmp_path)
    with pytest.raises(DatasetError, match="the town of the test set"):
        load_dataset("tinytown_train", seed=tinytown.SEED, root=tmp_path)
    with pytest.raises(DatasetError, match="keyword argument 'colour'"):
        load_dataset("tinytown", colour="red")


@pytest.fixture
def tiny(small, tmp_path, monkeypatch):
    "The test set as if it were the small town, and its root."
    monkeypatch.setattr(tinytown, "SEED", 3)
    monkeypatch.setattr(tinytown, "LANDMARKS", 2)
    monkeypatch.setattr(tinytown, "DISTRACTORS", 3)
    shutil.copytree(small, tmp_path / "tinytown-v1")
    dataset = Tinytown("tinytown", tmp_path / "tinytown-v1", SMALL)
    monkeypatch.setattr(tinytown, "CHECKSUM", tinytown.town_checksum(dataset))
    return tmp_path


def test_check(tiny, monkeypatch):
    assert "as they were rendered" in tinytown.check_tinytown(tiny)
    monkeypatch.setattr(tinytown, "CHECKSUM", "f" * 16)
    with pytest.raises(DatasetError, match="the truth has checksum"):
        tinytown.check_tinytown(tiny)


def test_changed_file_is_named_and_comes_back(tiny):
    place = tiny / "tinytown-v1" / SMALL[0].name
    (place / "03.jpg").write_bytes((place / "04.jpg").read_bytes())
    (place / "05.jpg").unlink()
    with pytest.raises(DatasetError, match=r"2 of \d+ files.*lm0000/03.jpg, lm0000/05.jpg"):
        tinytown.check_tinytown(tiny)
    shutil.rmtree(place)
    render_missing(place.parent, SMALL, render_place, 3, n_jobs=1, progress=False)
    assert "as they were rendered" in tinytown.check_tinytown(tiny)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no more", None])
def test_damaged_record(tiny, damage):
    record = tiny / "tinytown-v1" / SMALL[1].name / "place.npz"
    if damage is None:
        record.unlink()
    else:
        record.write_bytes(damage)
    with pytest.raises(DatasetError, match="place.npz is damaged, delete"):
        tinytown.check_tinytown(tiny)


def test_check_of_what_is_not_there(tmp_path):
    with pytest.raises(DatasetError, match="is not there"):
        tinytown.check_tinytown(tmp_path)


# --- clips


def test_clips():
    clips = load_dataset("tinytown_clips")
    groups = tinytown_clips.origin_groups(clips)
    assert sum(map(len, groups.values())) >= 300
    assert sum(len(g) > 1 for g in groups.values()) == tinytown_clips.PLACES
    for q in range(0, len(clips.queries), 9):
        own = clips.details["clip"][clips.images.index(clips.queries[q])]
        origin = clips.truth.group_names[clips.truth.groups[q]]
        for i in clips.truth.easy[q]:
            assert clips.labels[i] == origin and clips.details["clip"][i] != own
        assert all(clips.details["clip"][i] == own for i in clips.truth.junk[q])
