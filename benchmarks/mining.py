"""How much of an epoch's mining is not the net. `python benchmarks/mining.py` prints one table.

`HardNegatives` mines 2,000 queries in a pool of 20,000 images. Two parts are timed in the same run:

- a photo: `extract` on rendered photographs at the mining size (EfficientNet-Lite0 GeM), beside the
  bare net on the same photographs once they are read and resized, in batches as `extract` makes
  them. What `extract` needs beyond the bare net is reading and resizing;
- an epoch: the whole of `mine` but for describing: its net is a stand-in that looks vectors up.

Both are put together for the 22,000 images of an epoch. Wanted: less than 10 % of it outside
`extract`; the share outside the bare net is told beside it.
"""

import argparse
import statistics
from unittest import mock

import numpy as np
import torch
from common import interleaved, machine, table

from imret.datasets import load_dataset
from imret.features import extract, read_image, resize_image
from imret.features.extract import Workers
from imret.nets import create_embedder, inference_net
from imret.training import HardNegatives, TuplePool, mining

QUERIES, POOL = 2000, 20_000
GATE = 0.10


def large_pool(rng: np.random.Generator) -> TuplePool:
    "22,000 images in 700 clusters of very different sizes; nobody looks at the images."
    clusters = (700 * rng.random(POOL + QUERIES) ** 2).astype(int)
    return TuplePool.from_labels([str(i) for i in range(len(clusters))], clusters.tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=int, default=100, help="photographs that are described")
    parser.add_argument("--size", type=int, default=320, help="long side at which they are mined")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    options = parser.parse_args()

    town = load_dataset("tinytown_train", size=8, split="all")
    files = [town.images[i % len(town.images)] for i in range(options.photos)]
    net = create_embedder("efficientnet_lite0-gem")
    ready = inference_net(net)
    embed = lambda pixels: ready(torch.from_numpy(pixels)).numpy()  # noqa: E731
    how = net.preprocess.interpolation
    pictures = [resize_image(read_image(f), options.size, how, net.stride) for f in files]
    cores = extract_threads()

    def bare() -> None:
        size = lambda shape: max(1, 400_000 // (shape[0] * shape[1]))  # noqa: E731
        for _, found in Workers(len(pictures), lambda i: [pictures[i]], embed, size, cores, cores):
            assert isinstance(found, np.ndarray), found

    rng = np.random.default_rng(0)
    pool = large_pool(rng)
    vectors = rng.standard_normal((len(pool.images), net.dim), np.float32)
    vectors += 2 * rng.standard_normal((700, net.dim), np.float32)[pool.clusters]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    miner = HardNegatives(queries=QUERIES, pool=POOL)

    def look_up(net, images, *args, **kwargs) -> np.ndarray:
        return vectors[[int(i) for i in images]]

    def mine() -> None:
        with mock.patch.object(mining, "extract", look_up):
            miner.mine(net, pool, progress=False)

    seconds = interleaved(
        {
            "extract": lambda: extract(net, files, image_size=options.size, progress=False),
            "net": bare,
            "mine": mine,
        },
        options.repeats,
    )
    images = len(np.union1d(miner.draw(pool, 0)[0], miner.draw(pool, 0)[2]))
    scale = images / len(files)
    outside, no_net = [], []
    for e, n, m in zip(*seconds.values(), strict=True):
        outside.append(m / (e * scale + m))
        no_net.append(1 - n * scale / (e * scale + m))
    row = {
        "what": f"{QUERIES:,} queries, {POOL:,} images, Lite0 GeM {options.size}",
        "describing, s": statistics.median(seconds["extract"]) * scale,
        "drawing and ranking, s": statistics.median(seconds["mine"]),
        "outside extract": statistics.median(outside),
        "wanted below": GATE,
        "outside the bare net": statistics.median(no_net),
    }
    print(machine(), table([row]), sep="\n\n")


def extract_threads() -> int:
    "As many threads as `extract` works with."
    import torch

    return max(1, min(torch.get_num_threads(), 8))


if __name__ == "__main__":
    main()
