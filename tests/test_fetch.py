"""Downloads: lines that break, servers that lie, disks that are full, archives that bite."""

import errno
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from local_server import LocalServer

from imret.core import DatasetError
from imret.datasets import RemoteFile
from imret.datasets import fetch as fetch_files
from imret.datasets.fetch import _download

MODULE = sys.modules["imret.datasets.fetch"]  # `imret.datasets.fetch` is the function
NOISE = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def server():
    server = LocalServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(MODULE, "_PAUSE", 0.01)


def fetch(url, folder, **settings):
    return fetch_files([RemoteFile(url, **settings)], folder, progress=False)


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_of(files, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, data in files.items():
            if isinstance(data, tarfile.TarInfo):
                data.name = name
                tar.addfile(data)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zip_of(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def packed(name, files):
    "An archive as its name says."
    mode = {"tar": "w", "gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}
    suffix = name.rsplit(".")[-1]
    return zip_of(files) if suffix == "zip" else tar_of(files, mode[suffix])


def shown(folder):
    "All files that are no business of `fetch` alone."
    paths = (p.relative_to(folder) for p in Path(folder).rglob("*") if not p.is_dir())
    return sorted(p.as_posix() for p in paths if p.parts[0] != ".fetch")


# ---------------------------------------------------------------- lines that break


def test_a_plain_file_comes_once(server, tmp_path):
    server.files["/a.bin"] = NOISE
    for _ in range(2):
        fetch(f"{server.address}/a.bin", tmp_path / "new/set", known_hash=sha(NOISE))
    assert (tmp_path / "new/set/a.bin").read_bytes() == NOISE
    assert server.asked == [("/a.bin", 0, 300_000)]


def test_a_broken_line_goes_on_within_one_call(server, tmp_path):
    server.files["/a.bin"], server.patience = NOISE, 70_000
    fetch(f"{server.address}/a.bin", tmp_path, known_hash=sha(NOISE))
    assert (tmp_path / "a.bin").read_bytes() == NOISE
    assert [first for _, first, _ in server.asked] == [0, 70_000, 140_000, 210_000, 280_000]
    assert sum(sent for *_, sent in server.asked) == len(NOISE)


def test_a_broken_line_goes_on_in_the_next_call(server, tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "_TRIES", 1)
    server.files["/a.bin"], server.patience = NOISE, 100_000
    with pytest.raises(DatasetError, match="100,000 bytes are kept, and only the rest"):
        fetch(f"{server.address}/a.bin", tmp_path)
    assert shown(tmp_path) == []
    server.patience = None
    fetch(f"{server.address}/a.bin", tmp_path)
    assert server.asked == [("/a.bin", 0, 100_000), ("/a.bin", 100_000, 200_000)]
    assert (tmp_path / "a.bin").read_bytes() == NOISE
    assert not list((tmp_path / ".fetch").glob("*.part*"))


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    server.files["/a.bin"], server.patience, server.ranges = NOISE, 100_000, False
    with pytest.raises(DatasetError, match="breaks off"):
        fetch(f"{server.address}/a.bin", tmp_path)
    assert {first for _, first, _ in server.asked} == {0} and len(server.asked) == 4
    server.patience = None
    fetch(f"{server.address}/a.bin", tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == NOISE


@pytest.mark.parametrize(
    "length", [300_000, 50_000]
)  # as long as before, and shorter than the part
def test_a_file_that_changes_meanwhile_starts_anew(server, tmp_path, monkeypatch, length):
    monkeypatch.setattr(MODULE, "_TRIES", 1)
    server.files["/a.bin"], server.patience = NOISE, 100_000
    with pytest.raises(DatasetError, match="breaks off"):
        fetch(f"{server.address}/a.bin", tmp_path)
    server.files["/a.bin"], server.tag, server.patience = NOISE[::-1][:length], '"2"', None
    fetch(f"{server.address}/a.bin", tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == NOISE[::-1][:length]


@pytest.mark.parametrize("have", [300_000, 400_000])  # complete but not yet in place; too long
def test_a_part_that_has_no_rest(server, tmp_path, have):
    server.files["/a.bin"] = NOISE
    (tmp_path / "p.part").write_bytes((NOISE + NOISE)[:have])
    _download(f"{server.address}/a.bin", tmp_path / "a.bin", tmp_path / "p.part", False)
    assert (tmp_path / "a.bin").read_bytes() == NOISE


def test_errors_that_pass_are_asked_again_and_others_are_not(server, tmp_path):
    server.files["/a.bin"] = NOISE
    server.refuse["/a.bin"] = [503, 500, 429]
    fetch(f"{server.address}/a.bin", tmp_path)
    assert len(server.asked) == 4
    for status in (401, 403, 404, 410):
        server.asked.clear()
        server.refuse["/b.bin"] = [status]
        with pytest.raises(DatasetError, match=f"/b.bin: the server answers {status}"):
            fetch(f"{server.address}/b.bin", tmp_path)
        assert len(server.asked) == 1
    server.asked.clear()
    server.refuse["/c.bin"] = [500] * 9
    with pytest.raises(DatasetError, match="/c.bin cannot be reached, or breaks off .*500"):
        fetch(f"{server.address}/c.bin", tmp_path)
    assert len(server.asked) == 4
    assert (tmp_path / "a.bin").read_bytes() == NOISE


def test_no_network(server, tmp_path):
    server.close()
    with pytest.raises(DatasetError, match="cannot be reached.*refused.*check the network"):
        fetch(f"{server.address}/a.bin", tmp_path)
    with pytest.raises(DatasetError, match="cannot be reached"):
        fetch("http://no-such-host.invalid/a.bin", tmp_path)


def test_a_silent_server(server, tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "_TIMEOUT", (0.2, 0.2))
    monkeypatch.setattr(MODULE, "_TRIES", 2)
    server.files["/a.bin"] = NOISE
    server.delay.clear()
    with pytest.raises(DatasetError, match="cannot be reached.*timed out"):
        fetch(f"{server.address}/a.bin", tmp_path)
    server.delay.set()


@pytest.mark.parametrize("url", ["gopher://example.org/a", "http:///a", "a.bin"])
def test_no_address(url, tmp_path):
    with pytest.raises(DatasetError, match="is no address|cannot be reached"):
        fetch(url, tmp_path)


def test_ftp_is_left_to_pooch(tmp_path, monkeypatch):
    class Stub:
        def __init__(self, timeout):
            pass

        def __call__(self, url, target, _):
            if url.endswith("gone"):
                raise MODULE.FTPError("550 gone: No such file")
            if url.endswith("full"):
                raise OSError(errno.ENOSPC, "No space left on device")
            Path(target).write_bytes(NOISE)

    with monkeypatch.context() as m:
        m.setattr(MODULE.pooch, "FTPDownloader", Stub)
        fetch("ftp://example.org/a.bin", tmp_path, known_hash=sha(NOISE))
        assert (tmp_path / "a.bin").read_bytes() == NOISE
        with pytest.raises(DatasetError, match="ftp://example.org/gone: .*550"):
            fetch("ftp://example.org/gone", tmp_path)
        with pytest.raises(DatasetError, match="disk is full"):
            fetch("ftp://example.org/full", tmp_path)
    with pytest.raises(DatasetError, match="ftp://127.0.0.1/b: .*check the address"):
        fetch("ftp://127.0.0.1/b", tmp_path)  # nobody serves there


# ---------------------------------------------------------------- what comes is wrong


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_wrong_hash(server, tmp_path, algorithm):
    server.files["/a.tgz"] = data = tar_of({"a.jpg": NOISE})
    right = hashlib.new(algorithm, data).hexdigest()
    wrong = right[::-1]
    with pytest.raises(DatasetError) as e:
        fetch(f"{server.address}/a.tgz", tmp_path, known_hash=f"{algorithm}:{wrong}", unpack=".")
    for part in (f"{server.address}/a.tgz", right, f"{algorithm}:{wrong}", "removed"):
        assert part in str(e.value)
    left = [p.name for p in tmp_path.rglob("*") if p.is_file()]
    assert left in (["lock"], [])
    fetch(
        f"{server.address}/a.tgz", tmp_path, known_hash=f"{algorithm}:{right.upper()}", unpack="."
    )
    assert shown(tmp_path) == ["a.jpg"]


def test_a_file_put_there_by_hand_is_checked_and_used(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(NOISE)
    fetch(f"{server.address}/a.bin", tmp_path, known_hash=sha(NOISE))
    assert server.asked == []
    (tmp_path / "b.bin").write_bytes(b"half of it")
    server.files["/b.bin"] = b"wrong too"
    with pytest.raises(DatasetError, match="the hash is"):
        fetch(f"{server.address}/b.bin", tmp_path, known_hash=sha(NOISE))
    assert (tmp_path / "b.bin").read_bytes() == b"half of it"
    server.files["/b.bin"] = NOISE
    fetch(f"{server.address}/b.bin", tmp_path, known_hash=sha(NOISE))
    assert (tmp_path / "b.bin").read_bytes() == NOISE


def test_what_was_taken_away_or_cut_is_fetched_again(server, tmp_path):
    server.files |= {"/a.bin": NOISE, "/b.tgz": tar_of({"x/b.jpg": b"b"})}
    files = [
        RemoteFile(f"{server.address}/a.bin"),
        RemoteFile(f"{server.address}/b.tgz", unpack="jpg", strip=1),
    ]
    fetch_files(files, tmp_path, False)
    assert shown(tmp_path) == ["a.bin", "jpg/b.jpg"]
    (tmp_path / "a.bin").write_bytes(b"cut")
    (tmp_path / "a.bin").unlink()
    shutil.rmtree(tmp_path / "jpg")
    fetch_files(files, tmp_path, False)
    assert shown(tmp_path) == ["a.bin", "jpg/b.jpg"] and len(server.asked) == 4
    (tmp_path / ".fetch/done.json").write_text("{")
    fetch_files(files[:1], tmp_path, False)
    assert len(server.asked) == 4


# ---------------------------------------------------------------- archives


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz", "a.zip"])
@pytest.mark.parametrize("strip", [0, 1])
def test_every_kind_of_archive(server, tmp_path, name, strip):
    files = {"top/a b.jpg": b"1", "top/sub/Škoda 東京.jpg": b"2", "top/sub/é/c.txt": b""}
    data = packed(name, files)
    server.files[f"/{name}"] = data
    (tmp_path / "jpg").mkdir()
    (tmp_path / "jpg/mine.jpg").write_bytes(b"mine")
    fetch(f"{server.address}/{name}", tmp_path, unpack="jpg", strip=strip, known_hash=sha(data))
    names = [n.split("/", strip)[-1] for n in files]
    assert shown(tmp_path) == sorted(["jpg/mine.jpg"] + [f"jpg/{n}" for n in names])
    assert (tmp_path / f"jpg/{names[1]}").read_bytes() == b"2"


def link_to(target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "bad",
    [
        {"../out.jpg": b"x"},
        {"top/../../../out.jpg": b"x"},
        {"top/link": link_to("/etc")},
        {"top/link": link_to("../../../..")},
        {"top/fifo": link_to("", tarfile.FIFOTYPE)},
    ],
)
@pytest.mark.parametrize("strip", [0, 1])
def test_no_path_outside(server, tmp_path, bad, strip):
    server.files["/a.tgz"] = tar_of({"top/a.jpg": b"1"} | bad)
    with pytest.raises(DatasetError, match="a.tgz is not safe to unpack: .*ask its authors"):
        fetch(f"{server.address}/a.tgz", tmp_path / "in/set", unpack="jpg", strip=strip)
    assert shown(tmp_path / "in/set") == [] and os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize("name", ["../out.jpg", "/tmp/out.jpg", "a/../../out.jpg"])
def test_no_path_outside_of_a_zip(server, tmp_path, name):
    server.files["/a.zip"] = zip_of({"a.jpg": b"1", name: b"x"})
    with pytest.raises(DatasetError, match="not safe to unpack"):
        fetch(f"{server.address}/a.zip", tmp_path / "in", unpack=".")
    assert shown(tmp_path / "in") == [] and os.listdir(tmp_path) == ["in"]


def test_links_inside_an_archive_are_kept(server, tmp_path):
    hard = link_to("top/a.jpg", tarfile.LNKTYPE)
    files = {"top/a.jpg": b"1", "top/b.jpg": link_to("a.jpg"), "top/c.jpg": hard}
    server.files["/a.tgz"] = tar_of(files)
    fetch(f"{server.address}/a.tgz", tmp_path, unpack="jpg", strip=1)
    assert [(tmp_path / f"jpg/{c}.jpg").read_bytes() for c in "abc"] == [b"1"] * 3


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.tar.bz2", "a.tar.xz", "a.zip"])
@pytest.mark.parametrize("how", ["cut", "flipped", "page", "empty"])
def test_a_damaged_archive(server, tmp_path, name, how):
    files = {f"{i}.jpg": NOISE[i * 50_000 : (i + 1) * 50_000] for i in range(4)}
    data = packed(name, files)
    if how == "flipped" and name == "a.tar":
        data = bytes(100) + data[100:]  # a tar has a checksum of its headers only
    elif how == "flipped":
        data = data[:120_000] + bytes(b ^ 255 for b in data[120_000:120_100]) + data[120_100:]
    data = {"cut": data[:120_000], "page": b"<!doctype html>", "empty": b""}.get(how, data)
    (tmp_path / "jpg").mkdir()
    (tmp_path / "jpg/mine.jpg").write_bytes(b"mine")
    server.files[f"/{name}"] = data
    with pytest.raises(DatasetError, match=f"{name} is no archive that can be unpacked") as e:
        fetch(f"{server.address}/{name}", tmp_path, unpack="jpg")
    assert ("web page" in str(e.value)) == (how == "page") and "\n" not in str(e.value)
    assert shown(tmp_path) == ["jpg/mine.jpg"]
    server.files[f"/{name}"] = packed(name, files)
    fetch(f"{server.address}/{name}", tmp_path, unpack="jpg")
    assert shown(tmp_path) == sorted(["jpg/mine.jpg"] + [f"jpg/{n}" for n in files])


def test_an_own_archive_that_is_damaged_is_left_where_it_is(server, tmp_path):
    (tmp_path / "a.tgz").write_bytes(b"mine")
    with pytest.raises(DatasetError, match="no archive"):
        fetch(f"{server.address}/a.tgz", tmp_path, unpack=".")
    assert shown(tmp_path) == ["a.tgz"]


def test_unpacking_that_was_killed_is_done_again(server, tmp_path):
    server.files["/a.tgz"] = tar_of({"a.jpg": b"1"})
    (tmp_path / ".unpacking").mkdir()
    (tmp_path / ".unpacking/half.jpg").write_bytes(b"half")
    fetch(f"{server.address}/a.tgz", tmp_path, unpack=".")
    assert shown(tmp_path) == ["a.jpg"]


def test_names_with_spaces_and_other_letters(server, tmp_path):
    server.files["/Praha město/東京 1.bin"] = NOISE
    fetch(f"{server.address}/Praha město/東京 1.bin", tmp_path / "a b/ž")
    fetch(f"{server.address}/Praha%20m%C4%9Bsto/%E6%9D%B1%E4%BA%AC%201.bin", tmp_path / "2")
    assert shown(tmp_path / "a b/ž") == shown(tmp_path / "2") == ["東京 1.bin"]


def test_places_in_folders(server, tmp_path):
    server.files |= {"/1/gnd.txt": b"1", "/2/gnd.txt": b"2"}
    files = [RemoteFile(f"{server.address}/{i}/gnd.txt", to=f"lab/{i}/gnd.txt") for i in (1, 2)]
    fetch_files(files, tmp_path, False)
    assert shown(tmp_path) == ["lab/1/gnd.txt", "lab/2/gnd.txt"]
    assert (tmp_path / "lab/2/gnd.txt").read_bytes() == b"2"


# ---------------------------------------------------------------- disks


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_while_downloading(server, tmp_path):
    server.files["/a.bin"] = NOISE
    (tmp_path / ".fetch").mkdir()
    (tmp_path / ".fetch/a.bin.part").symlink_to("/dev/full")
    with pytest.raises(DatasetError, match="disk is full .*free some space.*IMRET_DATA"):
        fetch(f"{server.address}/a.bin", tmp_path)


def test_a_disk_too_small_is_told_before_anything_comes(server, tmp_path, monkeypatch):
    server.files["/a.bin"] = NOISE
    with monkeypatch.context() as m:
        m.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 0, 10))
        with pytest.raises(DatasetError, match="disk is full .300,000 bytes are still to come"):
            fetch(f"{server.address}/a.bin", tmp_path)
    fetch(f"{server.address}/a.bin", tmp_path)


def test_a_full_disk_while_unpacking_keeps_the_archive(server, tmp_path, monkeypatch):
    server.files["/a.tgz"] = tar_of({"a.jpg": b"1", "b.jpg": b"2"})
    (tmp_path / "mine.jpg").write_bytes(b"mine")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(tarfile, "copyfileobj", full)
        with pytest.raises(DatasetError, match="disk is full"):
            fetch(f"{server.address}/a.tgz", tmp_path, unpack=".")
    assert shown(tmp_path) == ["a.tgz", "mine.jpg"]
    fetch(f"{server.address}/a.tgz", tmp_path, unpack=".")
    assert shown(tmp_path) == ["a.jpg", "b.jpg", "mine.jpg"] and len(server.asked) == 1


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written(server, tmp_path, monkeypatch, code):
    server.files["/a.bin"] = NOISE

    def refused(path, *_, **__):
        raise OSError(code, os.strerror(code), str(path))

    with monkeypatch.context() as m:
        m.setattr(os, "mkdir", refused)
        with pytest.raises(DatasetError, match=r"cannot be written .*root=.*IMRET_DATA"):
            fetch(f"{server.address}/a.bin", tmp_path / "set")
    fetch(f"{server.address}/a.bin", tmp_path / "set")
    with monkeypatch.context() as m:  # all is there: nothing needs to be written
        for name in ("mkdir", "replace", "open"):
            m.setattr(os, name, refused)
        fetch(f"{server.address}/a.bin", tmp_path / "set")


def test_a_file_where_a_folder_should_be(server, tmp_path):
    (tmp_path / "set").write_bytes(b"")
    with pytest.raises(DatasetError, match="set: "):
        fetch(f"{server.address}/a.bin", tmp_path / "set")


# ---------------------------------------------------------------- processes


def test_a_killed_process_loses_nothing(server, tmp_path):
    server.files["/a.bin"], server.patience = NOISE, 100_000
    answer, server._answer = server._answer, lambda request: wait_then_answer(request)

    def wait_then_answer(request):
        if server.asked:
            server.delay.clear()
        answer(request)

    script = (
        "from imret.datasets.fetch import RemoteFile, fetch\n"
        f"fetch([RemoteFile('{server.address}/a.bin')], r'{tmp_path}', progress=False)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", script])
    part = tmp_path / ".fetch/a.bin.part"
    for _ in range(600):
        if part.exists() and part.stat().st_size == 100_000:
            break
        time.sleep(0.05)
    run.kill()
    run.wait()
    server._answer, server.patience = answer, None
    server.delay.set()
    time.sleep(0.2)
    server.asked.clear()
    fetch(f"{server.address}/a.bin", tmp_path)
    assert server.asked == [("/a.bin", 100_000, 200_000)]
    assert (tmp_path / "a.bin").read_bytes() == NOISE and shown(tmp_path) == ["a.bin"]


def test_two_processes_do_the_work_once(server, tmp_path):
    server.files |= {"/a.tgz": tar_of({f"{i}.jpg": NOISE for i in range(5)}), "/b.bin": NOISE}
    server.delay.clear()
    script = (
        "from imret.datasets.fetch import RemoteFile, fetch\n"
        f"a = RemoteFile('{server.address}/a.tgz', unpack='jpg')\n"
        f"b = RemoteFile('{server.address}/b.bin')\n"
        f"fetch([a, b], r'{tmp_path}', progress=False)\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    server.delay.set()
    assert [run.wait(60) for run in runs] == [0, 0]
    assert sorted(path for path, *_ in server.asked) == ["/a.tgz", "/b.bin"]
    assert len(shown(tmp_path)) == 6
