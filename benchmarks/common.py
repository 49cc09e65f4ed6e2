"""What every benchmark here shares: the machine in words, interleaved timing, limits, a table."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch


def machine() -> str:
    "The machine and the libraries in one line."
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [o for o in info.read_text().splitlines() if o.startswith("model name")]
        cpu = named[0].partition(":")[2].strip() if named else cpu
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cpu}, {os.cpu_count()} cores{gpu}; torch {torch.__version__}, numpy {np.__version__}"


def interleaved(
    calls: dict[str, Callable[[], object]],  # What to time, by name
    repeats: int = 7,  # Rounds; in each every call runs once
    warm: int = 1,  # Rounds before that are not counted
) -> dict[str, list[float]]:  # Seconds, a list of `repeats` for each name
    "Time several calls in turns, so that what else the machine does falls on all alike."
    seconds = {name: [] for name in calls}
    for r in range(warm + repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if r >= warm:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(
    a: Sequence[float],  # Seconds, round by round
    b: Sequence[float],  # Seconds in the same rounds
) -> float:  # Median of a / b
    "How many times as long a takes as b: the median of the ratios within each round."
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def gemm(
    dtype: torch.dtype = torch.float32,  # `torch.float32` or `torch.bfloat16`
    n: int = 2048,  # Side of the square matrices
) -> tuple[Callable[[], object], float]:  # A call, and the floating-point operations it does
    "A matrix product, the rate at which this machine can multiply."
    a, b = (torch.randn(n, n).to(dtype) for _ in range(2))
    out = torch.empty(n, n, dtype=dtype)
    return lambda: torch.mm(a, b, out=out), 2.0 * n**3


def has_bf16() -> bool:
    "Whether this processor multiplies bfloat16 in hardware."
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def table(
    rows: Sequence[dict],  # One dict a row, all with the same keys
) -> str:  # Markdown
    "A markdown table; floats with three significant digits."

    def text(value) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([text(r[k]) for k in head] for r in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
