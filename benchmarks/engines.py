"""What `extract` gains over a plain loop. `python benchmarks/engines.py` prints a table a size.

The peer is the loop that one writes first: open a file with Pillow, resize, normalise, send it
through PyTorch alone, in inference mode. `extract` gets the same files, sizes and threads. What
makes a net ready (copies, ONNX files, compiling) is done before. In the first round, which is not
counted, every engine meets every shape. Weights are random, for time does not depend on them;
BatchNorms are stirred, so that folding has something to get wrong. Photos are few and enlarged,
so their files are smaller than a camera's. Core-seconds are what a process gets from all its cores:
they tell most where other processes take turns with this one.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from common import has_bf16, interleaved, machine, ratio, table
from PIL import Image
from torch import nn

from imret.datasets import load_dataset
from imret.features import extract
from imret.nets import EmbeddingNet, create_embedder, export_onnx, load_onnx

SIZES = [(640, 480), (800, 600), (1024, 683), (1280, 960), (1280, 720), (1600, 1200), (2048, 1365)]
WANTED = {"extract, float32": 1.4, "extract, bfloat16": 2.2, "OpenVINO, bfloat16": 4.0}


def make_photos(folder: Path, n: int) -> list[Path]:
    "JPEGs of camera sizes, one in three upright, and one in five cropped to no usual shape."
    rng, files = np.random.default_rng(0), []
    dataset = load_dataset("photos")
    sources = [Image.open(f).convert("RGB") for f in [*dataset.queries, *dataset.images]]
    for i in range(n):
        width, height = SIZES[rng.integers(len(SIZES))]
        if rng.random() < 1 / 5:
            width, height = (int(side * rng.uniform(0.6, 1)) for side in (width, height))
        if rng.random() < 1 / 3:
            width, height = height, width
        photo = sources[i % len(sources)].resize((width, height), Image.Resampling.BICUBIC)
        files.append(folder / f"{i}.jpg")
        photo.save(files[-1], quality=int(rng.integers(80, 96)))
    return files


def stirred_net(name: str = "resnet50-gem") -> EmbeddingNet:
    "Random weights, and BatchNorms that do something."
    torch.manual_seed(0)
    net = create_embedder(name, pretrained=False)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return net.eval()


def plain_loop(net: EmbeddingNet, files: list[Path], image_size: int) -> np.ndarray:
    "One picture at a time, as one writes it first."
    look, vectors = net.preprocess, []
    method = Image.Resampling[look.interpolation.upper()]
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (look.mean, look.std))
    with torch.inference_mode():
        for file in files:
            photo = Image.open(file).convert("RGB")
            scale = image_size / max(photo.size)
            photo = photo.resize(tuple(round(side * scale) for side in photo.size), method)
            x = torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() / 255
            vectors.append(net(((x - mean) / std)[None])[0].numpy())
    return np.stack(vectors)


def engines(net: EmbeddingNet, folder: Path) -> dict[str, tuple[EmbeddingNet, str]]:
    "What `extract` is called with, by name: a net and a dtype."
    file = folder / "net.onnx"
    export_onnx(net, file)
    twin = copy.deepcopy(net)  # one net is kept ready in one dtype at a time
    half = {"extract, bfloat16": (twin, "bfloat16")} if has_bf16() else {}
    found = {"extract, float32": (net, "float32")} | half
    found["onnxruntime, float32"] = load_onnx(file), "float32"
    found["OpenVINO, float32"] = load_onnx(file, "openvino"), "float32"
    if half:
        found["OpenVINO, bfloat16"] = load_onnx(file, "openvino", dtype="bfloat16"), "bfloat16"
    return found


def size_rows(net: EmbeddingNet, found: dict, files: list[Path], size: int, repeats: int) -> list:
    "One long side: each engine against the plain loop."
    vectors, cores = {}, {}

    def extracted(which: EmbeddingNet, dtype: str) -> np.ndarray:
        return extract(which, files, image_size=size, dtype=dtype, device="cpu", progress=False)

    def noted(name: str, call: Callable[[], np.ndarray]) -> None:
        start = time.process_time()
        vectors[name] = call()
        cores.setdefault(name, []).append(time.process_time() - start)

    todo = {"plain loop": lambda: plain_loop(net, files, size)}
    todo |= {name: partial(extracted, *which) for name, which in found.items()}
    calls = {name: partial(noted, name, call) for name, call in todo.items()}
    seconds = interleaved(calls, repeats)
    cores = {name: spent[-repeats:] for name, spent in cores.items()}
    same = vectors["plain loop"]
    return [
        {
            "long side": size,
            "images": len(files),
            "what": name,
            "images/s": len(files) / statistics.median(seconds[name]),
            "x plain loop": ratio(seconds["plain loop"], seconds[name]),
            "wanted": WANTED.get(name, "–"),
            "x in core-seconds": ratio(cores["plain loop"], cores[name]),
            "least cosine": f"{(vectors[name] * same).sum(axis=1).min():.5f}",
        }
        for name in calls
    ]


def scales_row(net: EmbeddingNet, files: list[Path], size: int, repeats: int) -> dict:
    "Three scales against one, in time and in pixels."
    scales = (1, 2**-0.5, 2**0.5)

    def call(*which: float) -> None:
        extract(net, files, image_size=size, scales=which, device="cpu", progress=False)

    seconds = interleaved({"one": lambda: call(1), "three": lambda: call(*scales)}, repeats)
    time_ratio, pixels = ratio(seconds["three"], seconds["one"]), sum(s**2 for s in scales)
    return {
        "long side": size,
        "images": len(files),
        "time of three / one": time_ratio,
        "pixels of three / one": pixels,
        "time / pixels": time_ratio / pixels,
        "at most": 1.1,
    }


def gpu_rows(net: EmbeddingNet, files: list[Path], size: int, repeats: int) -> list[dict]:
    """From JPEG to vectors on a GPU: by `extract`, and decoded there by torchvision if it can.

    The GPU waits where its time on pictures that lie there already is less than the whole."""
    from torchvision.io import decode_jpeg, read_file
    from torchvision.transforms.v2.functional import resize

    from imret.nets import inference_net

    dtype = "bfloat16"
    ready = inference_net(net, dtype, "cuda")

    def fitted(x: torch.Tensor) -> torch.Tensor:
        scale = size / max(x.shape[1:])
        h, w = (max(round(side * scale), net.stride) for side in x.shape[1:])
        return resize(x, [h, w], antialias=True)

    def by_shape(pictures: list[torch.Tensor]) -> list[torch.Tensor]:
        shapes = {}
        for x in pictures:
            shapes.setdefault(x.shape, []).append(x)
        return [torch.stack(same).permute(0, 2, 3, 1) for same in shapes.values()]

    def decoded_there() -> list[torch.Tensor]:
        data = [read_file(str(f)) for f in files]
        return by_shape([fitted(x) for x in decode_jpeg(data, mode="RGB", device="cuda")])

    calls = {"extract": lambda: extract(net, files, image_size=size, dtype=dtype, progress=False)}
    try:
        batches = decoded_there()
        calls["decoded on the GPU"] = lambda: [ready(b) for b in decoded_there()]
    except RuntimeError as e:  # torchvision without nvJPEG
        print(f"no JPEG decoding on the GPU: {str(e).partition(chr(10))[0]}")
        batches = by_shape([fitted(decode_jpeg(read_file(str(f)), mode="RGB")) for f in files])
        batches = [b.cuda() for b in batches]
    calls["net alone"] = lambda: [ready(b) for b in batches]
    seconds = interleaved(calls, repeats)
    return [
        {
            "long side": size,
            "what": name,
            "images/s": len(files) / statistics.median(times),
            "the GPU waits": f"{max(0, 1 - ratio(seconds['net alone'], times)):.0%}",
        }
        for name, times in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each comparison")
    parser.add_argument("--images", type=int, help="JPEGs; default: 300 at 224, 24 at 1024")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 1024], help="long sides")
    parser.add_argument("--scales", action="store_true", help="three scales against one, no more")
    parser.add_argument("--gpu", action="store_true", help="the same net on a GPU, no more")
    options = parser.parse_args()
    if options.gpu and not torch.cuda.is_available():
        return print("no GPU here")
    net = stirred_net()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = {s: options.images or (300 if s < 512 else 24) for s in options.sizes}
        files = make_photos(folder, max(count.values()))
        found = {} if options.scales or options.gpu else engines(net, folder)
        rows = []
        for size in options.sizes:
            some = files[: count[size]]
            if options.gpu:
                rows += gpu_rows(net, some, size, options.repeats)
            elif options.scales:
                rows.append(scales_row(net, some, size, options.repeats))
            else:
                rows += size_rows(net, found, some, size, options.repeats)
    units = "with" if has_bf16() else "without"
    units += " AMX" if torch.cpu._is_amx_tile_supported() else " AVX-512 bfloat16"
    libraries = ", ".join(f"{p} {version(p)}" for p in ("onnxruntime", "openvino", "pillow"))
    print(f"{machine()}, {libraries}; {torch.get_num_threads()} threads, {units}")
    print(table(rows), sep="\n\n")


if __name__ == "__main__":
    main()
