"""Memory of a training step on a large batch: all at once, and in stages of one chunk.

python benchmarks/staged.py                    batches of 256 to 2,048 in stages, 64 and 128 at once
python benchmarks/staged.py --image-size 224   larger pictures: 5 GB
python benchmarks/staged.py --check            exit code 1 where the gate is missed

The net is the default one, all of it learning, the loss average precision in 20 bins. Each batch is
measured in a process of its own: the most it held during the step less what it held before, at rest
with the net in memory. Pictures are made when a chunk is asked for, as a loader would. Large
tensors are mapped one by one, so that holes which the C library keeps between them do not count.
On a CPU, and on Linux only."""

import argparse
import multiprocessing
import os
import sys
import time
from pathlib import Path

import torch
from common import machine, table

from imret.nets import create_embedder
from imret.training import create_loss, staged_backward

GATE = 1.10  # memory of the largest staged batch over that of the smallest
DIRECT = [64, 128]
STAGED = [256, 1024, 2048]


class Pictures:
    "Noise, the same at each look, made for the rows that are asked for."

    def __init__(self, n: int, size: int):
        self.n, self.size = n, size

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, rows: slice) -> torch.Tensor:
        start, stop, _ = rows.indices(self.n)
        generator = torch.Generator().manual_seed(start)
        return torch.rand(stop - start, 3, self.size, self.size, generator=generator)


def memory(what: str) -> float:
    "A line of this process's status, in GB."
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(o for o in lines if o.startswith(f"{what}:")).split()[1]) / 2**20


def step(kind: str, n: int, size: int, chunk: int) -> dict:
    "One step, and what it held."
    net = create_embedder("efficientnet_lite0-gem").eval().requires_grad_()
    pictures, labels, loss = Pictures(n, size), torch.arange(n) // 8, create_loss("ap")
    staged_backward(net, pictures[:8], lambda x: x.sum(), 8)  # gradients have their place
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = memory("VmRSS"), time.perf_counter()
    if kind == "staged":
        value = staged_backward(net, pictures, lambda x: loss(x, labels), chunk)
    else:
        value = loss(net(pictures[:]), labels)
        value.backward()
    seconds, held = time.perf_counter() - start, memory("VmHWM") - before
    return {"step": kind, "batch": n, "loss": value.item(), "s": seconds, "held, GB": held}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", type=int, default=96, help="side of the pictures")
    parser.add_argument("--chunk", type=int, default=64, help="pictures the net sees together")
    parser.add_argument("--direct", type=int, nargs="*", default=DIRECT, help="batches at once")
    parser.add_argument("--staged", type=int, nargs="+", default=STAGED, help="batches in stages")
    parser.add_argument("--check", action="store_true", help="exit code 1 where the gate is missed")
    args = parser.parse_args()

    print(f"{machine()}; {args.image_size} pixels, chunks of {args.chunk}\n", flush=True)
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "262144")  # bytes; children read it
    context, rows = multiprocessing.get_context("spawn"), []
    steps = [*(("direct", n) for n in args.direct), *(("staged", n) for n in args.staged)]
    for kind, n in steps:
        with context.Pool(1) as pool:
            rows.append(pool.apply(step, (kind, n, args.image_size, args.chunk)))
    staged = [row["held, GB"] for row in rows if row["step"] == "staged"]
    for row in rows:
        row["over the smallest"] = row["held, GB"] / staged[0] if row["step"] == "staged" else "–"
        row["wanted"] = GATE if row["batch"] == args.staged[-1] else "–"
    print(table(rows))
    return int(args.check and staged[-1] / staged[0] > GATE)


if __name__ == "__main__":
    sys.exit(main())
