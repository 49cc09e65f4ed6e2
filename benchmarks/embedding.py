"""How near embedding comes to its limits. `python benchmarks/embedding.py` prints one table.

Net: ResNet-50 GeM on 224 x 224 pictures in memory, through the workers of `extract`, against the
rate of a square matrix product of the same precision in the same rounds.

Files: `extract` on JPEGs of mixed sizes against what its core-seconds allow: the time that reading
all files takes with every core busy, plus the time that the net takes on the pictures once read.
A share of 1 means that nothing waits. Every figure is the median of interleaved rounds.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from common import gemm, has_bf16, interleaved, machine, ratio, table
from PIL import Image
from skimage import data
from torch.utils.flop_counter import FlopCounterMode

from imret.features import extract, read_image, resize_image
from imret.features.extract import Workers
from imret.nets import EmbeddingNet, create_embedder, inference_net

NAMES = ["astronaut", "coffee", "chelsea", "rocket", "retina", "brick", "camera", "coins"]
SIZES = [(640, 480), (480, 640), (800, 600), (1024, 683), (683, 1024), (1280, 960), (1600, 1200)]
CORES = torch.get_num_threads()


def operations(net: EmbeddingNet) -> float:
    "Floating-point operations of one 224 x 224 picture."
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 3, 224, 224))
    return counter.get_total_flops()


def through(net: EmbeddingNet, pictures: list[np.ndarray], dtype: str) -> Callable:
    "A call that sends pictures in memory through the net as `extract` does."
    ready = inference_net(net, dtype)
    embed = lambda pixels: ready(torch.from_numpy(pixels)).numpy()  # noqa: E731

    def call() -> None:
        size = lambda shape: max(1, 400_000 // (shape[0] * shape[1]))  # noqa: E731
        for _, result in Workers(len(pictures), lambda i: [pictures[i]], embed, size, CORES, CORES):
            assert isinstance(result, np.ndarray), result

    return call


def photos(folder: Path, n: int) -> list[Path]:
    "JPEGs of mixed sizes."
    rng, files = np.random.default_rng(0), []
    for i in range(n):
        photo = Image.fromarray(read_image(getattr(data, NAMES[i % len(NAMES)])()))
        photo = photo.resize(SIZES[rng.integers(len(SIZES))], Image.Resampling.BICUBIC)
        files.append(folder / f"{i}.jpg")
        photo.save(files[-1], quality=int(rng.integers(80, 96)))
    return files


def net_row(dtype: str, repeats: int) -> dict:
    torch.manual_seed(0)
    net = create_embedder("resnet50-gem", pretrained=False)
    pictures = list(np.random.default_rng(0).integers(0, 256, (64, 224, 224, 3), np.uint8))
    multiply, work = gemm(getattr(torch, dtype))
    times = 10 if dtype == "float32" else 50
    calls = {"net": through(net, pictures, dtype)}
    calls["gemm"] = lambda: [multiply() for _ in range(times)]
    seconds = interleaved(calls, repeats)
    per_gemm = times * work / (len(pictures) * operations(net))  # a net's worth of gemm in time
    return {
        "what": f"net, ResNet-50 GeM 224, {dtype}",
        "images/s": len(pictures) / statistics.median(seconds["net"]),
        "limit images/s": len(pictures) * per_gemm / statistics.median(seconds["gemm"]),
        "share": ratio(seconds["gemm"], seconds["net"]) / per_gemm,
        "wanted": 0.75,
    }


def files_row(name: str, size: int, dtype: str, files: list[Path], repeats: int) -> dict:
    torch.manual_seed(0)
    net = create_embedder(name, pretrained="lite" in name)

    def read(file: Path) -> np.ndarray:
        return resize_image(read_image(file), size, net.preprocess.interpolation, net.stride)

    def one_core() -> None:
        torch.set_num_threads(1)

    with ThreadPoolExecutor(CORES, initializer=one_core) as pool:
        pictures = list(pool.map(read, files))
        torch.set_num_threads(CORES)
        seconds = interleaved(
            {
                "read": lambda: list(pool.map(read, files)),
                "net": through(net, pictures, dtype),
                "all": lambda: extract(net, files, image_size=size, dtype=dtype, progress=False),
            },
            repeats,
        )
    allowed = [r + n for r, n in zip(seconds["read"], seconds["net"], strict=True)]
    return {
        "what": f"files, {name} {size}, {dtype}",
        "images/s": len(files) / statistics.median(seconds["all"]),
        "limit images/s": len(files) / statistics.median(allowed),
        "share": ratio(allowed, seconds["all"]),
        "wanted": 0.9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7, help="rounds of each comparison")
    parser.add_argument("--files", type=int, default=200, help="JPEGs in the folder")
    options = parser.parse_args()
    dtypes = ["float32", *(["bfloat16"] if has_bf16() else [])]
    rows = [net_row(dtype, options.repeats) for dtype in dtypes]
    with tempfile.TemporaryDirectory() as folder:
        files = photos(Path(folder), options.files)
        for dtype in dtypes:
            rows.append(files_row("resnet50-gem", 224, dtype, files, options.repeats))
        rows.append(files_row("efficientnet_lite0-gem", 320, "float32", files, options.repeats))
    print(machine(), table(rows), sep="\n\n")


if __name__ == "__main__":
    main()
