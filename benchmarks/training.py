"""What the trainer costs beyond a bare loop. `python benchmarks/training.py` prints one table.

The peer is the loop that one writes first: the same net, loss, optimizer and batches of tuples, in
PyTorch alone. Once the pictures lie in memory at their size, so that nothing but the steps is
timed; and once both read, decode and resize files, the loop one after another, the trainer ahead of
the step that needs them. Wanted: less than 5 % more than the loop where pictures lie in memory.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from common import interleaved, machine, ratio, table

from imret.datasets import load_dataset
from imret.features import read_image
from imret.nets import create_embedder, freeze
from imret.training import Trainer, View, create_loss, create_optimizer, parameter_groups

WANTED = 1.05


class FixedTuples:
    "The same tuples in each epoch: nothing is mined."

    form, boxes = "tuple", None

    def __init__(self, images: list, batches: list[np.ndarray]):
        self.images, self.batches = images, batches

    def epoch(self, *ask) -> tuple[list[np.ndarray], dict]:
        "All batches."
        return self.batches, {}

    def loss(self, loss, embeddings, batch) -> torch.Tensor:
        "The loss of a batch."
        e = embeddings.view(*batch.shape, -1)
        return loss(e[:, 0], e[:, 1], e[:, 2:])


def learner() -> tuple:
    "A net that partly learns, a loss, an optimizer: the same at each call."
    net = create_embedder("efficientnet_lite0-gem")
    freeze(net, 3)
    groups = parameter_groups(net, 1e-6)
    return net, create_loss("contrastive"), create_optimizer("adam", groups)


def bare_loop(source: FixedTuples, view: View) -> Callable[[], None]:
    "An epoch as one writes it first."
    net, loss_fn, optimizer = learner()

    def epoch() -> None:
        net.train()
        for batch in source.batches:
            how = net.preprocess.interpolation, net.stride
            pixels = [view(read_image(source.images[i]), None, *how) for i in batch.reshape(-1)]
            vectors = net(net.preprocess(torch.from_numpy(np.stack(pixels))))
            loss = source.loss(loss_fn, vectors, batch)
            loss.item()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return epoch


def trainers(source: FixedTuples, view: View) -> Callable[[], None]:
    "An epoch of the trainer."
    parts = learner()

    def epoch() -> None:
        net, loss, optimizer = parts
        Trainer(net, loss, source, optimizer, view=view, epochs=1).fit(progress=False)

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=160, help="side of the square pictures")
    parser.add_argument("--tuples", type=int, default=50, help="tuples of an epoch, 5 images each")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    options = parser.parse_args()

    town, view = load_dataset("tinytown_train", size=8, split="all"), View(options.size, "square")
    rng = np.random.default_rng(0)
    batches = list(rng.integers(0, len(town.images), (options.tuples // 5, 5, 5)))
    how = create_embedder("efficientnet_lite0-gem").preprocess.interpolation
    sources = {
        "pictures in memory": [view(read_image(f), rng, how) for f in town.images],
        "files": town.images,
    }
    rows = []
    for name, images in sources.items():
        source = FixedTuples(images, batches)
        calls = {"loop": bare_loop(source, view), "trainer": trainers(source, view)}
        seconds = interleaved(calls, options.repeats)
        rows.append(
            {
                "an epoch from": name,
                "steps": len(batches),
                "loop, s": float(np.median(seconds["loop"])),
                "trainer, s": float(np.median(seconds["trainer"])),
                "trainer / loop": ratio(seconds["trainer"], seconds["loop"]),
                "wanted below": WANTED if name == "pictures in memory" else "–",
            }
        )
    print(machine(), table(rows), sep="\n\n")


if __name__ == "__main__":
    main()
