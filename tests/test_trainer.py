"""The trainer: many processes, interruption, failures, and what is kept."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import imret.training.trainer as trainer_module
from imret.core import GroundTruth, ImageError, SpecError, StoreError
from imret.datasets import RetrievalDataset
from imret.nets import EmbeddingNet, Preprocess, WeightsError, create_embedder, load_net
from imret.nets.backbones import read_checkpoint
from imret.training import (
    ClassBatches,
    LabelBatches,
    RandomNegatives,
    Trainer,
    TrainingError,
    TripletHashingLoss,
    TupleBatches,
    TuplePool,
    View,
    create_loss,
    create_optimizer,
    parameter_groups,
    read_recipe,
)

SIDE = 32


class SmallNet(nn.Module):
    "A net of the right form that costs nothing."

    def __init__(self, dim: int = 8, normalize: bool = True):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, dim, 5, 4), nn.ReLU(), nn.Conv2d(dim, dim, 3))
        self.preprocess, self.stride, self.dim, self.name = Preprocess(), 16, dim, "small"
        self.normalize = normalize

    def forward(self, x):
        v = self.body(x).mean(dim=(2, 3))
        return nn.functional.normalize(v, dim=-1) if self.normalize else v


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> tuple[list[Path], np.ndarray]:
    "Sixty pictures of twelve colours."
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    files, labels = [], np.repeat(np.arange(12), 5)
    for i, label in enumerate(labels):
        colour = np.random.default_rng(int(label)).integers(40, 215, 3)
        noise = rng.integers(-40, 40, (48, 40 + 8 * (i % 3), 3))
        files.append(folder / f"{i:02}.png")
        cv2.imwrite(str(files[-1]), (colour + noise).clip(0, 255).astype(np.uint8))
    return files, labels


def make(
    pictures, out=None, epochs=3, kind="tuple", lr=1e-2, view="random_square", by="sgd", **options
):
    "A trainer of a small net."
    files, labels = pictures
    torch.manual_seed(0)
    net = options.pop("net", None) or SmallNet(normalize=kind == "tuple")
    if kind == "tuple":
        pool = TuplePool.from_labels(files, labels)
        source = TupleBatches(pool, RandomNegatives(n=3, queries=20), batch_size=4)
        loss = options.pop("loss", create_loss("sos", first="triplet", weight=2.0, margin=0.5))
    else:
        source = LabelBatches(files, labels, ClassBatches(labels, 4, 3))
        loss = options.pop("loss", TripletHashingLoss(3.0))
    more = {"momentum": 0.9} if by == "sgd" else {}  # Adam makes much of gradients that are noise
    optimizer = create_optimizer(by, parameter_groups(net, lr), **more)
    shown = View(SIDE, view, flip=True)
    return Trainer(
        net, loss, source, optimizer, view=shown, epochs=epochs, out=out, cpu=True, **options
    )


def weights(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.net.parameters()])


# --- what is computed


@pytest.mark.parametrize("view", ["random_square", "whole"])
@pytest.mark.parametrize("kind", ["tuple", "batch"])
def test_bare_loop(pictures, kind, view):
    "An epoch is what a loop without any trainer does."
    trainer = make(pictures, epochs=1, kind=kind, view=view)
    twin = make(pictures, epochs=1, kind=kind, view=view)
    losses = []
    batches, _ = twin.source.epoch(twin.net, 1)
    loaded = trainer_module.load_ahead(twin.source, batches, twin.view, twin.net, (0, 1))
    for batch, shown in zip(batches, loaded, strict=True):
        x = [twin.net.preprocess(torch.from_numpy(p[None])) for p in shown]
        vectors = torch.cat([twin.net(one) for one in x])
        loss = twin.source.loss(twin.loss, vectors, batch)
        loss.backward()
        twin.optimizer.step()
        twin.optimizer.zero_grad()
        losses.append(loss.item())
    table = trainer.fit(progress=False)
    assert table["loss"][1] == pytest.approx(np.mean(losses), rel=1e-5)
    assert (weights(trainer) - weights(twin)).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["tuple", "batch"])
def test_chunks(pictures, kind):
    whole, parts = make(pictures, kind=kind), make(pictures, kind=kind, chunk=5)
    whole.fit(progress=False)
    parts.fit(progress=False)
    assert np.allclose(whole.table["loss"][1:], parts.table["loss"][1:], atol=1e-5)
    assert (weights(whole) - weights(parts)).abs().max() < 1e-4


def test_accumulated_batches_are_averaged(pictures):
    "Two batches of a mean are one of twice the size, where the loss is a mean over tuples."
    loss = create_loss("triplet", margin=0.5)
    small = make(pictures, epochs=1, accumulate=2, loss=loss, lr=1e-2)
    large = make(pictures, epochs=1, loss=loss, lr=1e-2)
    small.source.batch_size, large.source.batch_size = 2, 4
    small.fit(progress=False)
    large.fit(progress=False)
    assert (weights(small) - weights(large)).abs().max() < 1e-4


def test_clip(pictures):
    trainer = make(pictures, epochs=1, clip=1e-9)
    seen = []
    step = trainer.optimizer.step
    norm = lambda: sum(p.grad.square().sum() for p in trainer.net.parameters()).sqrt()  # noqa: E731
    trainer.optimizer.step = lambda: (seen.append(norm().item()), step())
    trainer.fit(progress=False)
    assert seen and max(seen) < 2e-9


SCRIPT = """
import pickle, sys
import torch
sys.path.insert(0, {tests!r})
from test_trainer import make, weights
with open({pictures!r}, "rb") as f:
    pictures = pickle.load(f)
trainer = make(pictures, epochs=2, kind={kind!r}, lr=1e-2)
trainer.fit(progress=False)
if trainer.team.rank == 0:
    torch.save({{"n": trainer.team.n, "loss": trainer.table["loss"].tolist(),
                 "weights": weights(trainer)}}, {out!r})
"""


@pytest.mark.parametrize("kind", ["tuple", "batch"])
def test_two_processes(pictures, kind, tmp_path):
    "Two processes of accelerate learn what one does, for losses that see the whole batch."
    import pickle

    saved, out, script = tmp_path / "pictures", tmp_path / "out.pt", tmp_path / "run.py"
    saved.write_bytes(pickle.dumps(pictures))
    told = {"tests": str(Path(__file__).parent), "pictures": str(saved), "kind": kind}
    script.write_text(SCRIPT.format(**told, out=str(out)))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]  # or it wants MPI
    launch += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        launch += ["--dynamo_backend", "no", "--main_process_port", str(free.getsockname()[1])]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [*launch, str(script)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    two, one = torch.load(out), make(pictures, epochs=2, kind=kind, lr=1e-2)
    one.fit(progress=False)
    assert two["n"] == 2
    assert np.allclose(two["loss"][1:], one.table["loss"][1:], atol=1e-4)
    assert (two["weights"] - weights(one)).abs().max() < 1e-4


# --- interruption


def test_killed_and_resumed(pictures, tmp_path):
    "A process that is killed in its second epoch, and one that goes on, end as an unbroken one."
    import pickle

    saved, script = tmp_path / "pictures", tmp_path / "run.py"
    saved.write_bytes(pickle.dumps(pictures))
    script.write_text(
        "import pickle, sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_trainer as t\n"
        f"pictures = pickle.load(open({str(saved)!r}, 'rb'))\n"
        f"run = t.make(pictures, {str(tmp_path / 'run')!r}, epochs=4, by='adam')\n"
        "learn = run._learn\n"
        "def slow(*args):\n"
        "    time.sleep(0.3 if len(run.rows) > 2 else 0)\n"
        "    return learn(*args)\n"
        "run._learn = slow\n"
        "run.fit(progress=False)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE)
    log, end = tmp_path / "run" / "log.csv", time.monotonic() + 240
    while not (log.exists() and len(log.read_text().splitlines()) > 3):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.4)  # in the middle of an epoch
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = make(pictures, tmp_path / "run", epochs=4, by="adam")
    unbroken = make(pictures, epochs=4, by="adam")
    resumed.fit(resume=True, progress=False)
    unbroken.fit(progress=False)
    assert len(resumed.table) == 5
    assert np.allclose(resumed.table["loss"][1:], unbroken.table["loss"][1:], atol=1e-6)
    assert (weights(resumed) - weights(unbroken)).abs().max() < 1e-6


def test_resume_with_other_settings(pictures, tmp_path):
    make(pictures, tmp_path, epochs=1, settings={"lr": "1e-3", "seed": "0"}).fit(progress=False)
    other = make(pictures, tmp_path, epochs=2, settings={"lr": "1e-4", "seed": "0"})
    with pytest.raises(TrainingError, match="lr was '1e-3', is '1e-4'"):
        other.fit(resume=True, progress=False)
    with pytest.raises(TrainingError, match="holds a run"):
        other.fit(progress=False)


def test_resume_of_a_run_with_names_in_their_old_spelling(pictures, tmp_path):
    old = {"view.kind": "'random-square'", "data.dataset": "'tinytown-train'"}
    make(pictures, tmp_path, epochs=1, settings=old).fit(progress=False)
    new = {key: value.replace("-", "_") for key, value in old.items()}
    table = make(pictures, tmp_path, epochs=2, settings=new).fit(resume=True, progress=False)
    assert table["epoch"].tolist() == [0, 1, 2]


def test_resume_where_nothing_is(pictures, tmp_path):
    table = make(pictures, tmp_path / "new", epochs=1).fit(resume=True, progress=False)
    assert table["epoch"].tolist() == [0, 1]


def test_resume_from_another_file(pictures, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "last.pt")
    with pytest.raises(TrainingError, match="no checkpoint of this trainer"):
        make(pictures, tmp_path).fit(resume=True, progress=False)


def headed(bits: int = 8):
    torch.manual_seed(0)
    return create_embedder(f"resnet10t-spoc-linear:{bits}", pretrained=False)


def test_a_net_with_a_head_comes_back(pictures, tmp_path):
    "The best net of a run with a head, from its file."
    net = headed()
    make(pictures, tmp_path, 1, "batch", 1e-4, net=net).fit(progress=False)
    again = load_net(tmp_path / "best.pth")
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(pixels), net(pixels)) and again.name == net.name


def test_a_head_that_has_no_name(pictures, tmp_path):
    "Its weights are kept; reading them back says that they lack a name."
    net = create_embedder("resnet10t-spoc", pretrained=False)
    head = nn.Sequential(nn.Linear(net.dim, 8), nn.Tanh())
    own = EmbeddingNet(net.backbone, net.pool, "resnet10t-spoc-own:8", head=head)
    make(pictures, tmp_path, 1, "batch", 1e-4, net=own).fit(progress=False)
    with pytest.raises(WeightsError, match="does not say which net"):
        load_net(tmp_path / "best.pth")
    own.load_state_dict(read_checkpoint(tmp_path / "best.pth")["state_dict"])


def test_resume_of_a_headed_run_of_version_0_1_0(pictures, tmp_path):
    "Its settings named the head apart from the net."
    then = {"net.name": "'resnet10t-spoc'", "net.bits": "8", "net.head": "'linear'"}
    make(pictures, tmp_path, 1, "batch", 1e-4, net=headed(), settings=then).fit(progress=False)
    now = {"net.name": "'resnet10t-spoc-linear:16'"}
    other = make(pictures, tmp_path, 2, "batch", 1e-4, net=headed(16), settings=now)
    with pytest.raises(TrainingError, match="was \"'resnet10t-spoc-linear:8'\", is"):
        other.fit(resume=True, progress=False)
    now = {"net.name": "'resnet10t-spoc-linear:8'"}
    same = make(pictures, tmp_path, 2, "batch", 1e-4, net=headed(), settings=now)
    assert len(same.fit(resume=True, progress=False)) == 3


@pytest.mark.parametrize(
    "net, wanted",
    [
        ({"bits": 0, "head": "linear"}, "efficientnet_lite0-gem"),
        ({"bits": 8}, "efficientnet_lite0-gem-linear:8"),
        (
            {"name": "resnet18-spoc", "bits": 8, "head": "divide_encode"},
            "resnet18-spoc-divide_encode:8",
        ),
        ({"name": "resnet18-spoc-hash:8", "bits": 0}, "resnet18-spoc-hash:8"),
    ],
)
def test_recipes_of_version_0_1_0(net, wanted):
    "A head had keys of its own; now the name of the net holds it."
    assert read_recipe({"net": net})["net"] == read_recipe({"net": {"name": wanted}})["net"]


@pytest.mark.parametrize("change", ["net.bits=16", "net.head=hash"])
def test_a_head_told_twice(change):
    with pytest.raises(SpecError, match="say net.name=efficientnet_lite0-spoc-(linear:16|hash:64)"):
        read_recipe("triplet_hashing", [change])


def test_finished_run(pictures, tmp_path):
    first = make(pictures, tmp_path, epochs=2).fit(progress=False)
    again = make(pictures, tmp_path, epochs=2).fit(resume=True, progress=False)
    assert again["loss"].tolist()[1:] == first["loss"].tolist()[1:]


# --- failures


def test_nan_stops_and_keeps(pictures, tmp_path):
    "A loss that is not finite names its batch; the checkpoint before it stays."
    make(pictures, tmp_path, epochs=1).fit(progress=False)
    kept = (tmp_path / "last.pt").read_bytes()
    trainer = make(pictures, tmp_path, epochs=2)
    trainer.callbacks.append(lambda t: None)
    loss = trainer.source.loss
    calls = []

    def third(module, embeddings, batch):
        calls.append(batch)
        return loss(module, embeddings, batch) * (float("nan") if len(calls) == 3 else 1)

    trainer.source.loss = third
    with pytest.raises(TrainingError, match=r"epoch 2, batch 2 \(.*png.*the loss is nan"):
        trainer.fit(resume=True, progress=False)
    assert (tmp_path / "last.pt").read_bytes() == kept


@pytest.mark.parametrize("which", ["last.pt", "best.pth"])
def test_full_disk(pictures, which, tmp_path, monkeypatch):
    make(pictures, tmp_path, epochs=1).fit(progress=False)
    kept = (tmp_path / "last.pt").read_bytes()
    real = torch.save

    def full(state, file, *args, **more):
        if which in str(file):
            Path(file).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        return real(state, file, *args, **more)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StoreError, match="No space left.*an earlier epoch is kept"):
        make(pictures, tmp_path, epochs=2).fit(resume=True, progress=False)
    assert (tmp_path / "last.pt").read_bytes() == kept
    assert not list(tmp_path.glob("*.tmp"))


def test_broken_image(pictures, tmp_path):
    files, labels = pictures
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(ImageError, match="bad.png"):
        make(([*files[:-1], bad], labels), epochs=3).fit(progress=False)


def test_batch_without_triplet(pictures):
    files, labels = pictures
    trainer = make((files, labels), kind="batch", epochs=1)
    trainer.source.sampler = [[0, 5, 10]]
    with pytest.raises(TrainingError, match="epoch 1, batch 0"):
        trainer.fit(progress=False)


def test_no_batches(pictures):
    trainer = make(pictures, kind="batch")
    trainer.source.sampler = []
    with pytest.raises(TrainingError, match="gave no batch"):
        trainer.fit(progress=False)


@pytest.mark.parametrize(
    "options, told",
    [
        ({"unit": "hour"}, "epoch or step"),
        ({"epochs": 0}, "epochs is a whole number"),
        ({"accumulate": 1.5}, "accumulate is a whole number"),
        ({"select": "test_mAP"}, "chosen by validation"),
        ({"loss": TripletHashingLoss(3.0)}, "called with a batch"),
    ],
)
def test_wrong_arguments(pictures, options, told):
    with pytest.raises(SpecError, match=told):
        make(pictures, **options)


# --- what is kept


def test_best_by_validation(pictures, tmp_path, monkeypatch):
    "The best epoch is the one that validation likes, not the last one, nor the test's."
    files, labels = pictures
    truth = GroundTruth.from_labels(labels[:4], labels, range(4))
    data = RetrievalDataset("some", files, files[:4], truth)
    values = iter([0.1, 0.9, 0.2, 0.8, 0.9, 0.1, 0.3, 0.9])  # test, valid; row by row

    def judged(net, dataset, view, progress):
        return [next(values)]

    trainer = make(pictures, tmp_path, judged={"test": data, "valid": data}, judge=judged, epochs=3)
    assert trainer.select == "valid_mAP"
    states = []
    trainer.callbacks.append(lambda t: states.append(weights(t).clone()))
    table = trainer.fit(progress=False)
    assert table["valid_mAP"].tolist() == [0.9, 0.8, 0.1, 0.9]
    best = torch.load(tmp_path / "best.pth")["state_dict"]
    flat = torch.cat([p.flatten() for p in best.values()])
    assert torch.equal(flat, states[2])


def test_tensorboard(pictures, tmp_path):
    make(pictures, tmp_path, epochs=2, tensorboard=True).fit(progress=False)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_norms_stay():
    "A net with BatchNorms trains without moving their statistics."
    from imret.nets import create_embedder

    net = create_embedder("resnet18-gem", pretrained=False)
    before = {k: b.clone() for k, b in net.named_buffers() if "running" in k}
    net.train()
    net(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(torch.equal(b, before[k]) for k, b in net.named_buffers() if k in before)


def test_miner_is_asked_with_last_loss(pictures):
    asked = []

    class Miner(RandomNegatives):
        def mine(self, net, pool, epoch=0, last_loss=None, progress=True):
            asked.append((epoch, last_loss))
            return super().mine(net, pool, epoch, last_loss, progress)

    trainer = make(pictures, epochs=2)
    trainer.source.miner = Miner(n=3, queries=8)
    table = trainer.fit(progress=False)
    assert asked == [(1, None), (2, table["loss"][1])]
    assert SimpleNamespace(**trainer.rows[-1]).epoch == 2
