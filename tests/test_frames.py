"""Groups in text files, frames of videos: damaged files, videos that break off, times that vary."""

import os
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imret.core import DatasetError
from imret.datasets import (
    draw_queries,
    frames,
    iter_frames,
    label_groups,
    list_videos,
    load_videos,
    read_groups,
    read_scores,
    sample_frames,
    sample_groups,
    split_by_size,
    write_groups,
    write_scores,
)

# --- groups

WORD = st.text(min_size=1).filter(lambda w: not any(c.isspace() for c in w) and w.isprintable())


@settings(max_examples=40, deadline=None)
@given(groups=st.dictionaries(WORD, st.lists(WORD, min_size=1)))
def test_groups_come_back(tmp_path_factory, groups):
    path = tmp_path_factory.mktemp("groups") / "groups.txt"
    write_groups(groups, path)
    assert read_groups(path) == groups


@settings(max_examples=40, deadline=None)
@given(
    scores=st.dictionaries(
        WORD,
        st.lists(st.tuples(WORD, st.floats(allow_nan=False, allow_infinity=False)), min_size=1),
    )
)
def test_scores_come_back(tmp_path_factory, scores):
    path = tmp_path_factory.mktemp("scores") / "scores.txt"
    write_scores(scores, path)
    assert read_scores(path) == scores


def test_groups_of_other_editors(tmp_path):
    path = tmp_path / "groups.txt"
    path.write_bytes("\ufeffa\tx y\r\n\r\nб\tz  \r\n".encode())
    assert read_groups(path) == {"a": ["x", "y"], "б": ["z"]}


@pytest.mark.parametrize("text", ["a b c\n", "a\t\n", "\tb\n", "a\tb\na\tc\n"])
def test_damaged_groups(tmp_path, text):
    path = tmp_path / "groups.txt"
    path.write_text(text)
    with pytest.raises(DatasetError, match="groups.txt, line"):
        read_groups(path)


@pytest.mark.parametrize(
    "text", ["a\tb\n", "a\tb:x\n", "a\t:1\n", "a\tb:nan\n", "a b:1\n", "a\tb:1\na\tb:1\n"]
)
def test_damaged_scores(tmp_path, text):
    path = tmp_path / "scores.txt"
    path.write_text(text)
    with pytest.raises(DatasetError, match="scores.txt, line"):
        read_scores(path)


@pytest.mark.parametrize("read", [read_groups, read_scores])
def test_files_that_cannot_be_read(tmp_path, read):
    with pytest.raises(DatasetError, match="No such file"):
        read(tmp_path / "groups.txt")
    with pytest.raises(DatasetError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "groups.txt").write_bytes("ä\tb:1\n".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"not UTF-8 \(byte 0\)"):
        read(tmp_path / "groups.txt")


def test_what_cannot_be_written(tmp_path):
    path = tmp_path / "x.txt"
    for groups in ({"a b": ["c"]}, {"a": ["b c"]}, {"a": [""]}, {"a": []}):
        with pytest.raises(DatasetError, match="x.txt: "):
            write_groups(groups, path)
    for scores in ({"a": [("b c", 1.0)]}, {"a": [("b", float("nan"))]}):
        with pytest.raises(DatasetError, match="x.txt: "):
            write_scores(scores, path)
    assert not path.exists()


def test_labels_of_groups(tmp_path):
    files = {name: tmp_path / f"{name}.jpg" for name in "abcd"}
    some = label_groups({"1": ["b", "a", "b"], "2": ["d"]}, files)
    assert some.labels == ["1", "1", "2"] and [p.stem for p in some.images] == ["b", "a", "d"]
    assert some.details["member"].tolist() == ["b", "a", "d"]
    with pytest.raises(DatasetError, match="'a' is in group '1' and in '2'"):
        label_groups({"1": ["a"], "2": ["a"]}, files)
    with pytest.raises(DatasetError, match="2 of 3 members have no file: x, y"):
        label_groups({"1": ["a", "x", "y"]}, files)


def test_sampling_groups():
    groups = {str(n): [f"{n}-{i}" for i in range(n)] for n in range(1, 9)}
    drawn = sample_groups(groups, 3, least=4)
    assert len(drawn) == 3 and all(len(m) >= 4 and groups[n] == m for n, m in drawn.items())
    assert drawn == sample_groups(groups, 3, least=4) and list(drawn) == sorted(drawn, key=int)
    assert len({tuple(sample_groups(groups, 3, seed=s)) for s in range(20)}) > 5
    assert sample_groups(groups, 5, least=4) == {n: groups[n] for n in "45678"}
    for count in (0, 6):
        with pytest.raises(DatasetError, match="5 of 8 groups have 4 or more"):
            sample_groups(groups, count, least=4)


def test_split_by_size():
    labels = [
        c for c, size in zip("abcdef", (2, 19, 20, 22, 24, 25), strict=True) for _ in range(size)
    ]
    split = split_by_size(labels)
    assert [labels[i] for i in split.query] == ["c", "d", "e"]
    assert len(split.database) == 66 and len(split.train) == 46
    assert not set(split.train) & set(split.database) and set(split.query) <= set(split.database)
    assert split_by_size(labels, seed=0).query.tolist() == split.query.tolist()
    assert len({tuple(split_by_size(labels, seed=s).query) for s in range(20)}) > 10
    every = split_by_size(labels, (1, 99))
    assert [labels[i] for i in every.query] == list("bcdef") and len(every.train) == 0
    assert [labels[i] for i in draw_queries(labels, least=2)] == list("abcdef")
    with pytest.raises(DatasetError, match="no class has 30 to 40 images.* 2 to 25"):
        split_by_size(labels, (30, 40))


# --- frames


def film(path, count=25, rate=10, size=(64, 48), code="MJPG"):
    "A video whose frame i is grey, 10 i."
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), rate, size)
    assert writer.isOpened()
    for i in range(count):
        writer.write(np.full((size[1], size[0], 3), 10 * i, np.uint8))
    writer.release()
    return path


def film_with_times(path, times):
    "A Matroska video whose frame i has the time stamp `times[i]`, in milliseconds."
    data = bytearray(film(path, len(times)).read_bytes())
    at = 0
    for i, time in enumerate(times):  # each block is: track 1, 16 bits of time, flags
        at = data.index(b"\x81" + struct.pack(">h", 100 * i) + b"\x80", at + 1)
        data[at + 1 : at + 3] = struct.pack(">h", time)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.avi", "with blanks.avi", "фильм 電影 é.avi", "50%02d.avi"])
def test_times_and_numbers(tmp_path, name):
    video = film(tmp_path / name)
    taken = list(iter_frames(video, seconds=0.5))
    assert [(n, t) for n, t, _ in taken] == [(0, 0), (5, 0.5), (10, 1), (15, 1.5), (20, 2)]
    for number, _, picture in taken:
        assert picture.shape == (48, 64, 3) and abs(picture.mean() - 10 * number) < 4
    assert [n for n, *_ in iter_frames(video, None, 7)] == [0, 7, 14, 21]
    assert len(list(iter_frames(video, seconds=0.001))) == 25


def test_mpeg4(tmp_path):
    taken = list(iter_frames(film(tmp_path / "a.mp4", code="mp4v"), seconds=1))
    assert [n for n, *_ in taken] == [0, 10, 20]


def test_colours_are_rgb(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.full((48, 64, 3), (255, 0, 0), np.uint8))  # blue in OpenCV's order
    writer.release()
    ((_, _, picture),) = iter_frames(tmp_path / "a.avi")
    assert picture[..., 2].mean() > 200 > 60 > picture[..., 0].mean()


def test_a_rate_that_varies(tmp_path):
    times = [0, 100, 200, 300, 1300, 2300, 2400, 2500, 4500]
    video = film_with_times(tmp_path / "a.mkv", times)
    assert [t for _, t, _ in iter_frames(video, seconds=1)] == [0, 1.3, 2.3, 4.5]
    assert [n for n, *_ in iter_frames(video, seconds=1)] == [0, 4, 5, 8]
    assert [n for n, *_ in iter_frames(video, seconds=0.1)] == list(range(9))


def test_steps_that_are_none(tmp_path):
    video = film(tmp_path / "a.avi", 3)
    for step in ((0, None), (-1, None), (None, None), (None, 0), (None, 1.5), (1.0, 2)):
        with pytest.raises(DatasetError, match="give a positive number of seconds"):
            list(iter_frames(video, *step))
    with pytest.raises(DatasetError, match="give a positive number"):
        sample_frames(video, tmp_path / "out", seconds=float("nan"))


@pytest.fixture
def videos(tmp_path):
    "Three videos, one that is none, one that is empty, one that breaks off, and a text."
    folder = tmp_path / "videos"
    film(folder / "a" / "one.avi")
    film(folder / "a" / "two films.avi", 12)
    film(folder / "б" / "one.avi", size=(96, 48))
    whole = film(folder / "broken off.avi").read_bytes()
    (folder / "broken off.avi").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").touch()
    (folder / "text.mkv").write_text("no video")
    (folder / "notes.txt").write_text("no video")
    (folder / ".trash").mkdir()
    film(folder / ".trash" / "old.avi", 3)
    return folder


def test_many_videos(videos, tmp_path, capfd):
    report = sample_frames(videos, tmp_path / "out", seconds=0.5, progress=False)
    assert "backend is generally available" not in capfd.readouterr().err
    report = report.set_index("video")
    names = ["a/one.avi", "a/two films.avi", "broken off.avi", "empty.mp4", "text.mkv", "б/one.avi"]
    assert list(report.index) == names
    assert report["frames"].tolist() == [5, 3, 1, 0, 0, 5]
    assert report["problem"].tolist() == [
        "",
        "",
        "breaks off after 0 of 2.5 seconds",
        "cannot be opened as a video",
        "cannot be opened as a video",
        "",
    ]
    out = tmp_path / "out"
    files = sorted(p.name for p in (out / "a" / "two films.avi").iterdir())
    assert files == ["000000.jpg", "000005.jpg", "000010.jpg", "frames.csv"]
    assert not list(out.rglob(".*"))
    again = sample_frames(videos, out, seconds=0.5, progress=False)
    assert again.set_index("video").equals(report)
    with pytest.raises(DatasetError, match="was sampled with .*give another folder"):
        sample_frames(videos, out, seconds=None, frames=5)


def test_goes_on_after_an_interruption(videos, tmp_path, monkeypatch):
    def stop(video, *step):
        if video.name == "two films.avi":
            raise KeyboardInterrupt
        return iter_frames(video, *step)

    monkeypatch.setattr(frames, "iter_frames", stop)
    with pytest.raises(KeyboardInterrupt):
        sample_frames(videos, tmp_path / "out", n_jobs=1, progress=False)
    assert (tmp_path / "out" / "a" / "one.avi" / "frames.csv").is_file()
    assert not (tmp_path / "out" / "videos.csv").exists()
    opened = []
    monkeypatch.setattr(frames, "iter_frames", lambda v, *s: opened.append(v) or iter_frames(v, *s))
    report = sample_frames(videos, tmp_path / "out", n_jobs=1, progress=False)
    assert len(opened) == 5 and videos / "a" / "one.avi" not in opened
    assert report["frames"].tolist() == [3, 2, 1, 0, 0, 3]


def test_sizes(videos, tmp_path):
    sample_frames(videos / "б", tmp_path / "out", longest=48, progress=False)
    assert cv2.imread(str(tmp_path / "out" / "one.avi" / "000000.jpg")).shape == (24, 48, 3)
    sample_frames(videos / "б" / "one.avi", tmp_path / "as it is", longest=4800, progress=False)
    picture = cv2.imread(str(tmp_path / "as it is" / "one.avi" / "000000.jpg"))
    assert picture.shape == (48, 96, 3)


def test_places_that_are_wrong(videos, tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        list_videos(tmp_path / "nowhere")
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match="holds no video"):
        sample_frames(tmp_path / "none", tmp_path / "out")
    with pytest.raises(DatasetError, match="cannot write frames into"):
        sample_frames(videos, videos / "notes.txt" / "out", progress=False)
    with pytest.raises(DatasetError, match="holds no frames: sample_frames"):
        load_videos(tmp_path / "none")


def test_set_by_origin(videos, tmp_path):
    out = tmp_path / "out"
    sample_frames(videos, out, seconds=0.5, progress=False)
    data = load_videos(out, {"x": ["a/one.avi", "a/two films.avi"]})
    assert len(data.images) == 14 and len(data.queries) == 2
    assert data.labels == ["x"] * 8 + ["broken off.avi"] + ["б/one.avi"] * 5
    assert data.queries[0] == out / "a" / "one.avi" / "000010.jpg"
    assert [ids.tolist() for ids in data.truth.easy] == [[5, 6, 7], [0, 1, 2, 3, 4]]
    assert [ids.tolist() for ids in data.truth.junk] == [[0, 1, 2, 3, 4], [5, 6, 7]]
    assert data.truth.group_names == ["x"]
    alone = load_videos(out)
    assert len(alone.queries) == 3 and [len(ids) for ids in alone.truth.easy] == [4, 2, 4]
    assert [len(ids) for ids in alone.truth.junk] == [1, 1, 1]
    with pytest.raises(DatasetError, match="names the video 'lost.avi'"):
        load_videos(out, {"x": ["lost.avi"]})
    with pytest.raises(DatasetError, match="'a/one.avi' is in 'x' and in 'y'"):
        load_videos(out, {"x": ["a/one.avi"], "y": ["a/one.avi"]})
    (out / "a" / "one.avi" / "frames.csv").write_text("")
    with pytest.raises(DatasetError, match="frames.csv is damaged"):
        load_videos(out)


def test_links_and_relative_paths(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(videos / "a" / "one.avi", tmp_path / "link.avi")
    report = sample_frames("link.avi", "out", progress=False)
    assert report["video"].tolist() == ["link.avi"] and report["frames"].tolist() == [3]
