"""The names of nets: declared as the classes are, read without PyTorch."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import imret
from imret.core import SpecError
from imret.names import REQUIRED, Part, format_spec, takes
from imret.nets.naming import (
    HEADS,
    NOT_NAMED,
    ORDER,
    POOLINGS,
    part_names,
    place_of,
    read_name,
)


@pytest.mark.parametrize(
    "registry, name",
    [(r, n) for r in (POOLINGS, HEADS) for n in r._declared],
    ids=[n for r in (POOLINGS, HEADS) for n in r._declared],
)
def test_declared_as_it_is(registry, name):
    "What is declared of a class: its module, its parameters in their order, and their defaults."
    module, part = registry._declared[name]
    cls = registry[name]
    assert cls.__module__ == module
    real = {k: v for k, v in takes(cls).items() if k not in NOT_NAMED}
    declared = dict.fromkeys(part.args, REQUIRED) | part.kwargs
    assert list(declared.items()) == list(real.items())
    assert [type(v) for v in declared.values()] == [type(v) for v in real.values()]


def test_all_that_is_registered_is_declared():
    "A pooling or head of the library that is not declared would be unknown until it is imported."
    for registry in (POOLINGS, HEADS):
        ours = {n for n, o in registry.items() if o.__module__.startswith("imret.")}
        assert ours == {*registry._declared}


WITHOUT = """
import sys, types
package = types.ModuleType("imret.nets")
package.__path__ = [sys.argv[1]]
sys.modules["imret.nets"] = package
from imret.nets.naming import read_name
for name in sys.argv[2:]:
    print(*map(str, read_name(name)[1].values()))
print({"torch", "timm", "torchvision"} & {*sys.modules})
"""


def test_read_without_torch():
    "The same from declarations alone as with the classes there."
    names = ["resnet18-soa:54", "resnet18-regional:p=4,levels=2-rwhiten", "resnet18-spoc-hash:64"]
    names += ["resnet18-rgem:p=5.0,size=5,eps=0.1", "resnet18-linear:bits=8,balanced=false"]
    room = Path(imret.__file__).parent / "nets"
    run = [sys.executable, "-c", WITHOUT, str(room), *names]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *read, loaded = done.stdout.splitlines()
    assert loaded == "set()"
    assert len([*POOLINGS.values(), *HEADS.values()]) > 10  # now all classes are there
    assert read == [" ".join(map(str, read_name(n)[1].values())) for n in names]


def test_places():
    assert {place_of(name) for name in part_names()} == {*ORDER}
    assert place_of("pooling") is place_of("pca") is None
    with pytest.raises(SpecError, match="unknown part 'pooling'"):
        read_name("resnet18-pooling")


PARTS = {
    "soa": ["soa:45", "soa:4"],
    "lwhiten": ["lwhiten"],
    "pooling": ["mac", "gem:p=4", "cls", "head", "regional:inner=mac", "regional:levels=2,p=4"],
    "rwhiten": ["rwhiten"],
    "whiten": ["whiten", "whiten:64", "whiten:64,raw=true"],
    "head": ["hash:64", "linear:8,balanced=true", "divide_encode:1"],
}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_name_reads_back(data):
    places = data.draw(st.lists(st.sampled_from(ORDER), unique=True))
    parts = [data.draw(st.sampled_from(PARTS[place])) for place in places]
    name = "-".join(["net_1.in1k", *parts])
    if {"whiten", "head"} <= {*places}:
        with pytest.raises(SpecError, match="keep one"):
            read_name(name)
        return
    backbone, found = read_name(name)
    assert backbone == "net_1.in1k" and [*found] == [p for p in ORDER if p in {*places, "pooling"}]
    assert {str(p) for p in found.values()} - {"gem"} == {*parts}
    assert read_name(format_spec([Part(backbone), *found.values()])) == (backbone, found)


@pytest.mark.parametrize(
    "name, said",
    [
        ("resnet18-gem:3", "by name, such as gem:p=3"),
        ("resnet18-gem:dim=4", "does not take dim: it takes p, learnable, eps, per_channel"),
        ("resnet18-roi:boxes=3", "does not take boxes"),
        ("resnet18-regional:inner=gum", "unknown pooling 'gum'"),
        ("resnet18-regional:inner=mac,p=4", "pooling 'mac:p=4' does not take p"),
        ("resnet18-hsh:64", "did you mean hash"),
    ],
)
def test_faults(name, said):
    with pytest.raises(SpecError, match=said) as e:
        read_name(name)
    assert "\n" not in str(e.value)
