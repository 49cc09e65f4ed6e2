"""Python imports this first, in every process that tools/costs.py starts, and in their children.

It counts the CPU seconds that the process spends in imports, extraction, rendering and training,
and leaves them in a file of the folder IMRET_COSTS."""

import functools
import importlib.abc
import json
import os
import sys
import threading
import time
from collections import defaultdict
from multiprocessing import util

# Functions whose time is counted, by the module that defines them.
WATCHED = {
    "imret.features.extract": {"extract": "extraction"},
    "imret.datasets.tinytown": {"render_place": "rendering", "render_missing": "rendering"},
    "imret.datasets.tinytown_clips": {"_render_clips": "rendering"},
    "imret.training.trainer": {"Trainer.fit": "training"},
}


class Meter:
    "Seconds of CPU by what the main thread is doing; what is inside another counts once."

    def __init__(self):
        self.start()
        util.register_after_fork(self, Meter.after_fork)

    def start(self) -> None:
        self.seconds, self.doing = defaultdict(float), ["other"]
        self.last = self.written = time.process_time()
        self.file = os.path.join(os.environ["IMRET_COSTS"], f"{os.getpid()}-{time.time_ns()}.json")

    def after_fork(self) -> None:
        "A child of multiprocessing counts its own seconds, and ends without atexit."
        self.start()
        util.Finalize(self, self.write, exitpriority=0)

    def count(self) -> None:
        now = time.process_time()
        self.seconds[self.doing[-1]] += now - self.last
        self.last = now

    def write(self) -> None:
        "What is known so far, as a whole file: the process may be killed at any time."
        self.count()
        self.written = self.last
        about = {"tag": os.environ.get("IMRET_COSTS_TAG") or os.environ.get("PYTEST_CURRENT_TEST")}
        with open(self.file + ".partial", "w") as file:
            json.dump(about | {"pid": os.getpid(), "seconds": self.seconds}, file)
        os.replace(self.file + ".partial", self.file)

    def wrap(self, function, what: str):
        "The function, its time counted where the main thread calls it."

        @functools.wraps(function)
        def counted(*args, **kwargs):
            if threading.current_thread() is not threading.main_thread():
                return function(*args, **kwargs)
            self.count()
            self.doing.append(what)
            try:
                return function(*args, **kwargs)
            finally:
                self.count()
                self.doing.pop()
                if len(self.doing) == 1 and self.last - self.written > 0.2:
                    self.write()

        return counted


class Finder(importlib.abc.MetaPathFinder):
    "Wraps the functions of a module that is watched as soon as it has been imported."

    def find_spec(self, name, path=None, target=None):
        if name not in WATCHED:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)):
                load = spec.loader.exec_module
                spec.loader.exec_module = functools.partial(watch, load)
                return spec
        return None


def watch(load, module) -> None:
    load(module)
    for name, what in WATCHED[module.__name__].items():
        owner, _, name = name.rpartition(".")
        owner = getattr(module, owner) if owner else module
        setattr(owner, name, METER.wrap(getattr(owner, name), what))


if os.environ.get("IMRET_COSTS"):
    import atexit

    METER = Meter()
    atexit.register(METER.write)
    sys.meta_path.insert(0, Finder())
    bootstrap = sys.modules["_frozen_importlib"]  # called for what is not imported yet
    bootstrap._find_and_load = METER.wrap(bootstrap._find_and_load, "imports")
