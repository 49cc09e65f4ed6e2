"""Lists of addresses: what a list may look like, what a server answers, what is remembered."""

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_server import LocalServer
from PIL import Image

from imret.core import DatasetError
from imret.datasets import get_dataset, load_dataset, url_lists
from imret.datasets.url_lists import (
    check_landmarks,
    choose_landmarks,
    download_urls,
    get_landmarks,
    load_landmarks,
    read_url_list,
    url_files,
)


def picture(kind="JPEG", seed=0):
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), np.uint8)
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


@pytest.fixture
def server():
    server = LocalServer()
    yield server
    server.close()


def table(server, names, landmark="Old Bridge"):
    rows = [(str(i), f"{server.address}/{n}", landmark) for i, n in enumerate(names)]
    return pd.DataFrame(rows, columns=["id", "url", "landmark"])


def get(urls, folder, **settings):
    settings = {"pause": 0, "retries": 2, "progress": False} | settings
    return download_urls(urls, folder, **settings)


def asked(server):
    "Which files were asked for since the last time, sorted."
    names = sorted(path[1:] for path, *_ in server.asked)
    server.asked.clear()
    return names


# ---------------------------------------------------------------- lists


def listed(tmp_path, text, name="urls.txt", **settings):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_url_list(tmp_path / name, **settings)


def test_a_landmark_and_its_addresses(tmp_path):
    got = listed(tmp_path, "B\thttp://x/1\thttp://x/2\n\nB \t http://x/3 \r\nŽ 東\thttps://x/1\n")
    assert got["landmark"].tolist() == ["B", "B", "B", "Ž 東"]
    assert got["url"].tolist() == ["http://x/1", "http://x/2", "http://x/3", "https://x/1"]
    more = listed(tmp_path, "A\thttp://x/0\nB\thttp://x/2\thttp://x/1\thttp://x/2\n")
    ids = dict(zip(more["url"], more["id"], strict=True))
    assert len(more) == 3  # what stands twice counts once
    assert [ids[u] for u in ("http://x/1", "http://x/2")] == got["id"][:2].tolist()


def test_ids_and_templates(tmp_path):
    got = listed(tmp_path, "a 1\thttp://x/1\nb\thttp://x/2\n", key="id")
    assert got.values.tolist() == [["a 1", "http://x/1", ""], ["b", "http://x/2", ""]]
    got = listed(tmp_path, "a/1\tBridge\n", template="http://x/{id}?{id}")
    assert got.values.tolist() == [["a/1", "http://x/a/1?a/1", "Bridge"]]


def test_a_table_with_a_header(tmp_path):
    text = '"id","url","landmark_id"\n"1","http://x/1,2","7"\n"2","None","7"\n"3","http://x/3","None"\n'
    got = listed(tmp_path, text, "urls.csv")
    assert got.values.tolist() == [["1", "http://x/1,2", "7"]]


@pytest.mark.parametrize(
    ("text", "settings", "told"),
    [
        ("", {}, "lists no address"),
        ("B\thttp://x/1\nB\tx/2\n", {}, "line 2: 'B.tx/2' is not a landmark, a tab"),
        ("http://x/1\n", {}, "line 1"),
        ("B\tftp://x/1\n", {}, "http:// or https://"),
        ("a\thttp://x/1\thttp://x/2\n", {"key": "id"}, "id 'a' has 2 addresses"),
        ("a\thttp://x/1\na\thttp://x/2\n", {"key": "id"}, "id 'a' stands for two addresses"),
        ("a\thttp://x/1\n", {"key": "name"}, "key is 'landmark' or 'id'"),
    ],
)
def test_lists_that_cannot_be_read(tmp_path, text, settings, told):
    with pytest.raises(DatasetError, match=told):
        listed(tmp_path, text, **settings)


def test_files_that_are_no_lists(tmp_path):
    with pytest.raises(DatasetError, match="a header with `url` is needed"):
        listed(tmp_path, "1,2,3\n", "urls.csv")
    (tmp_path / "urls.txt").write_bytes(b"\xff\xfe\x80")
    for path in (tmp_path / "urls.txt", tmp_path / "none.txt"):
        with pytest.raises(DatasetError, match="cannot be read as a list"):
            read_url_list(path)


def test_too_few_and_too_many():
    counts = {"few": 2, "some": 3, "many": 5, "most": 6}
    rows = [(str(i), f"http://x/{i}", m) for m, n in counts.items() for i in range(n)]
    urls = pd.DataFrame(rows, columns=["id", "url", "landmark"]).sample(frac=1, random_state=0)
    got = choose_landmarks(urls, 3, 5)
    assert set(got["landmark"]) == {"some", "many"}
    assert got["url"].tolist() == urls["url"][urls["landmark"].isin(["some", "many"])].tolist()
    assert len(choose_landmarks(urls, 7, 9)) == 0


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=9)))
def test_no_two_names_share_a_place_and_none_leads_outside(names):
    places = [url_lists._place(Path("set"), name, "m") for name in names]
    assert len(set(places)) == len(set(names))
    for place in places:
        assert (
            place.parent == Path("set/images/m") and place.name[0] != "." and "/" not in place.name
        )
        assert place.suffix == "" and "\0" not in place.name


# ---------------------------------------------------------------- asking


def test_what_comes_is_decoded_before_it_counts(server, tmp_path):
    server.files = {
        "/good.jpg": picture(),
        "/really a png.jpg": picture("PNG"),
        "/page.jpg": b"\n<!doctype html><p>gone",
        "/empty.jpg": b"",
        "/cut.jpg": picture()[:-60],
        "/noise.jpg": b"\x00\x01\x02" * 99,
    }
    names = [*(n[1:] for n in server.files), "gone.jpg"]
    got = get(table(server, names), tmp_path)
    assert [p and p.name for p in got["path"]] == ["0.jpg", "1.png"] + [None] * 5
    assert got["reason"].tolist() == [
        None,
        None,
        "a web page",
        "no bytes",
        "no image, or a damaged one",
        "no image, or a damaged one",
        "404 Not Found",
    ]
    assert (tmp_path / "images/Old Bridge/0.jpg").read_bytes() == picture()
    assert sorted(p.name for p in tmp_path.rglob("*.*") if p.is_file()) == sorted(
        ["0.jpg", "1.png", "broken.tsv", *(p.name for p in tmp_path.glob(".lock"))]
    )


def test_only_what_is_missing_is_asked_for(server, tmp_path):
    server.files = {f"/{c}.jpg": picture(seed=i) for i, c in enumerate("abc")}
    urls = table(server, ["a.jpg", "b.jpg", "c.jpg", "gone.jpg"])
    get(urls.iloc[:2], tmp_path)
    assert asked(server) == ["a.jpg", "b.jpg"]
    get(urls, tmp_path)
    assert asked(server) == ["c.jpg", "gone.jpg"]
    get(urls, tmp_path)
    assert asked(server) == []
    (tmp_path / "images/Old Bridge/1.jpg").unlink()
    server.files["/gone.jpg"] = picture()
    get(urls, tmp_path)
    assert asked(server) == ["b.jpg"]
    got = get(urls, tmp_path, again=True)
    assert asked(server) == ["gone.jpg"] and got["path"].notna().all()


def test_a_server_that_stumbles_is_asked_again_and_one_that_refuses_is_not(server, tmp_path):
    server.files = {"/a.jpg": picture(), "/b.jpg": picture(), "/c.jpg": picture()}
    server.refuse = {"/a.jpg": [503, 429, 500], "/b.jpg": [403], "/c.jpg": [500] * 99}
    got = get(table(server, ["a.jpg", "b.jpg", "c.jpg"]), tmp_path, retries=10)
    assert [path is None for path in got["path"]] == [False, True, True]
    assert asked(server) == ["a.jpg"] * 4 + ["b.jpg"] + ["c.jpg"] * 10
    assert got["reason"][2].startswith("500")


def test_a_line_that_breaks_is_asked_again(server, tmp_path):
    server.files, server.patience = {"/a.jpg": picture()}, 30
    got = get(table(server, ["a.jpg"]), tmp_path, retries=3)
    assert got["path"].isna().all() and asked(server) == ["a.jpg"] * 3


def test_too_much(server, tmp_path, monkeypatch):
    monkeypatch.setattr(url_lists, "_MOST_BYTES", 100_000)
    server.files = {"/film.jpg": bytes(900_000)}
    got = get(table(server, ["film.jpg"]), tmp_path)
    assert got["reason"].tolist() == ["more than 100,000 bytes"] and len(server.asked) == 1


def test_without_a_network_nothing_is_broken(server, tmp_path, monkeypatch):
    monkeypatch.setattr(url_lists, "_SILENT", 5)
    urls = table(server, [f"{i}.jpg" for i in range(40)])
    server.close()
    for n in (3, 40):
        with pytest.raises(DatasetError, match="no server answered.*check the network"):
            get(urls.iloc[:n], tmp_path, retries=1)
        assert (tmp_path / "broken.tsv").read_text() == ""
    live = LocalServer()
    live.files = {"/new.jpg": picture()}
    both = pd.concat([urls.iloc[:3], table(live, ["new.jpg"], "Tower")], ignore_index=True)
    got = get(both, tmp_path, retries=1)  # one that answers: now the others are broken
    live.close()
    assert got["path"].notna().tolist() == [False] * 3 + [True]
    assert got["reason"].tolist()[:3] == ["ConnectionError"] * 3


def test_a_full_disk_is_no_broken_address(server, tmp_path, monkeypatch):
    server.files = {"/a.jpg": picture()}

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(Path, "write_bytes", full)
        with pytest.raises(DatasetError, match="disk is full"):
            get(table(server, ["a.jpg"]), tmp_path)
    assert get(table(server, ["a.jpg"]), tmp_path)["path"].notna().all()


def test_a_log_that_was_cut_in_a_line(server, tmp_path):
    urls = table(server, ["a.jpg"])
    (tmp_path / "broken.tsv").write_text(f"{server.address}/a.jpg\tno bytes\nhttp://x/ha", "utf-8")
    assert url_files(urls, tmp_path)["reason"].tolist() == ["no bytes"]


# ---------------------------------------------------------------- the set


@pytest.fixture
def landmarks(server, tmp_path):
    "Three landmarks of 4, 4 and 2 addresses; one image of the second is gone, two of the first."
    lines = []
    for landmark, count in (("Týn", 4), ("東京 Tower", 4), ("House", 2)):
        for i in range(count):
            server.files[f"/{landmark}{i}.jpg"] = picture(seed=i)
            lines.append(f"{landmark}\t{server.address}/{landmark}{i}.jpg\n")
    for gone in ("Týn0", "Týn2", "東京 Tower3"):
        del server.files[f"/{gone}.jpg"]
    (tmp_path / "landmarks").mkdir()
    (tmp_path / "landmarks/urls.txt").write_text("".join(lines), "utf-8")
    return tmp_path


RANGE = {"fewest_urls": 3, "most_urls": 4}


def test_the_set(landmarks, server):
    with pytest.raises(DatasetError, match="8 of 8 addresses were not asked for yet"):
        check_landmarks(landmarks, **RANGE)
    with pytest.raises(DatasetError, match="images is not there: get the list"):
        load_landmarks(landmarks, **RANGE)
    get_landmarks(landmarks, False, **RANGE, pause=0)
    assert check_landmarks(landmarks, **RANGE) == "5 of 8 addresses gave an image, 3 are broken"
    got = load_landmarks(landmarks, **RANGE)
    assert got.labels == ["東京 Tower"] * 3
    assert got.details["url"].tolist() == [f"{server.address}/東京 Tower{i}.jpg" for i in range(3)]
    got = load_landmarks(landmarks, **RANGE, fewest=2)
    assert got.labels == ["Týn"] * 2 + ["東京 Tower"] * 3
    assert all(p.is_file() for p in got.images)


def test_the_order_is_the_lists(landmarks):
    get_landmarks(landmarks, False, **RANGE, pause=0)
    first = load_landmarks(landmarks, **RANGE, fewest=1)
    listing = landmarks / "landmarks/urls.txt"
    listing.write_text("".join(reversed(listing.read_text("utf-8").splitlines(True))), "utf-8")
    second = load_landmarks(landmarks, **RANGE, fewest=1)
    assert second.images == first.images[::-1] and second.labels == first.labels[::-1]


def test_a_moved_set_with_a_link(landmarks):
    get_landmarks(landmarks, False, **RANGE, pause=0)
    shutil.move(landmarks / "landmarks", landmarks / "elsewhere")
    (landmarks / "landmarks").symlink_to(landmarks / "elsewhere")
    assert len(load_landmarks(landmarks, **RANGE, fewest=1)) == 5


def test_no_list(tmp_path, monkeypatch):
    monkeypatch.setenv("IMRET_DATA", str(tmp_path))
    for ask in (lambda: load_dataset("landmarks"), lambda: get_dataset("landmarks")):
        with pytest.raises(DatasetError, match="urls.txt is not there: get the list .*neuralcodes"):
            ask()
