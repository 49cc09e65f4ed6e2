"""Names of every registry: written, read back, found in their old spelling, refused with a hint."""

import hashlib
import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imret.ablation import AXES
from imret.core import DatasetError, SpecError
from imret.datasets import check_dataset, find_card, get_dataset, list_datasets, load_dataset
from imret.datasets.registry import CHECKS, DATASETS, GETS
from imret.datasets.town_light import LIGHTS
from imret.datasets.town_street import SEASONS
from imret.features import WhiteningError, check_framing, create_whitening, guard_fit, resolutions
from imret.features.cache import image_key
from imret.features.images import CROPS, RESIZES
from imret.features.multiscale import SCALES
from imret.features.named import WHITENINGS
from imret.features.spec import check_setting
from imret.names import (
    REQUIRED,
    Part,
    Registry,
    create,
    format_spec,
    normal,
    parse_spec,
    read_value,
    takes,
    write_value,
)
from imret.nets import ENGINES, HEADS, POOLINGS
from imret.retriever import INDEXES
from imret.training import (
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    VIEWS,
    View,
    create_loss,
    create_optimizer,
    create_schedule,
    read_recipe,
)

REGISTRIES = [AXES, CHECKS, DATASETS, GETS, LOSSES, OPTIMIZERS, SCALES, SCHEDULES, WHITENINGS]
REGISTRIES += [ENGINES, HEADS, INDEXES, POOLINGS]
TABLES = {"crop": CROPS, "light": LIGHTS, "resize": RESIZES, "season": SEASONS, "view": VIEWS}

WORDS = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = NUMBERS | st.booleans() | WORDS | st.text(max_size=8)
PARTS = st.builds(
    Part,
    WORDS,
    st.lists(VALUES, max_size=2).map(tuple),
    st.dictionaries(WORDS, VALUES, max_size=2),
)


def settings(thing) -> dict:
    "What a name may set of a thing, with its defaults."
    return takes(thing) if callable(thing) else {}


@st.composite
def registered(draw) -> Part:
    "A registered name with values for some of its parameters."
    registry = draw(st.sampled_from(REGISTRIES))
    name = draw(st.sampled_from(list(registry)))
    known = sorted(settings(registry[name]))
    keys = draw(st.lists(st.sampled_from(known), unique=True, max_size=3)) if known else []
    return Part(name, (), {key: draw(VALUES) for key in keys})


# --- the grammar


@given(st.lists(PARTS, min_size=1, max_size=4))
def test_a_written_name_is_read_back(parts):
    assert parse_spec(format_spec(parts)) == parts


@given(st.lists(registered(), min_size=1, max_size=5))
def test_chains_of_registered_names_are_read_back(parts):
    text = format_spec(parts)
    assert parse_spec(text) == parts
    assert format_spec(parse_spec(text)) == text


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.kind)
def test_each_name_and_each_default(registry):
    assert len(registry) == len(list(registry)) > 0
    for name, thing in registry.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert registry.find(name) == registry.find(name.replace("_", "-")) == name
        assert registry[name.replace("_", "-")] is thing
        simple = {k: v for k, v in settings(thing).items() if type(v) in (bool, int, float, str)}
        for part in (Part(name), Part(name, (), simple)):
            text = str(part)
            assert parse_spec(text) == [part] and str(parse_spec(text)[0]) == text
        if callable(thing):  # what equals the default is not written
            lacking = [k for k, v in settings(thing).items() if v is REQUIRED]
            assert normal(registry, Part(name, (), simple), lacking) == Part(name)


@pytest.mark.parametrize("key, values", TABLES.items())
def test_each_value_of_a_table(key, values):
    for value in values:
        part = Part(key, (value,))
        assert str(part) == f"{key}:{value}" and parse_spec(str(part)) == [part]


@given(VALUES)
def test_a_written_value_is_read_back(value):
    again = read_value(write_value(value))
    assert again == value and type(again) is type(value)


@pytest.mark.parametrize(
    "bad", ["", " ", None, 3, "a--b", "-a", "a-", "gem:p=", "gem:=3", "gem:p=1,p=2"]
)
def test_bad_names_say_so(bad):
    with pytest.raises(SpecError):
        parse_spec(bad)


@pytest.mark.parametrize(
    "spec, parts",
    [
        ("gem:eps=1e-6-pca", [Part("gem", (), {"eps": 1e-6}), Part("pca")]),
        ("gem:p=-1-pca", [Part("gem", (), {"p": -1}), Part("pca")]),
        ("onnx:'my-net, v2=b.onnx'-pca", [Part("onnx", ("my-net, v2=b.onnx",)), Part("pca")]),
        ("onnx:'it''s.onnx'", [Part("onnx", ("it's.onnx",))]),
        ("onnx:file='a-b.onnx',size=224", [Part("onnx", (), {"file": "a-b.onnx", "size": 224})]),
        ("scales:1,0.7071,0.5", [Part("scales", (1, 0.7071, 0.5))]),
    ],
)
def test_numbers_and_paths(spec, parts):
    assert parse_spec(spec) == parts
    assert parse_spec(format_spec(parts)) == parts


@pytest.mark.parametrize(
    "bad, said",
    [
        ("onnx:'my net", "a quote that is not closed"),
        ("onnx:my-net.onnx", None),  # two parts: a path needs quotes
        ("onnx:", "cannot read ''"),
        ("a b", "a path stands in quotes"),
        ("../net.onnx", "a path stands in quotes"),
    ],
)
def test_paths_need_quotes(bad, said):
    if said is None:
        assert [p.name for p in parse_spec(bad)] == ["onnx", "net.onnx"]
        return
    with pytest.raises(SpecError, match=said):
        parse_spec(bad)


# --- what is not there


@pytest.mark.parametrize(
    "make, wrong, near, error",
    [
        (create_loss, "tripel", "triplet", SpecError),
        (create_loss, "tripel:margin=0.1", "triplet", SpecError),
        (lambda name: create_optimizer(name, []), "adamm", "adam", SpecError),
        (create_schedule, "inverse-sqr", "inverse_sqrt", SpecError),
        (create_whitening, "pac:dim=3", "pca", SpecError),
        (lambda name: resolutions(name, 320), "half-mor", "half_more", SpecError),
        (AXES.find, "poling", "pooling", SpecError),
        (lambda name: View(320, name), "random-sqare", "random_square", SpecError),
        (lambda name: check_framing(name, "long"), "same-scal", "same_scale", SpecError),
        (lambda name: check_framing("none", name), "squared", "square", SpecError),
        (lambda name: read_recipe({name: {}}), "optimiser", "optimizer", SpecError),
        (lambda name: read_recipe({"train": {name: 3}}), "epoch", "epochs", SpecError),
        (load_dataset, "tinytwn-train", "tinytown_train", DatasetError),
        (load_dataset, "fotos:crop=easy", "photos", DatasetError),
        (find_card, "retrieval-sfm-12k", "retrieval_sfm_120k", DatasetError),
        (check_dataset, "uni-oxfrd", "uni_oxford", DatasetError),
        (get_dataset, "gldv2-claen", "gldv2_clean", DatasetError),
        (list_datasets, "landmark", "landmarks", DatasetError),
    ],
)
def test_a_wrong_name_gets_the_nearest(make, wrong, near, error):
    with pytest.raises(error, match=rf"unknown .*; did you mean .*{near}"):
        make(wrong)


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.kind)
def test_what_is_not_there_is_answered_with_all_that_is(registry):
    with pytest.raises(registry.error) as e:
        registry.find("no-such-name")
    for name in registry:
        assert name in str(e.value)
    assert "no_such_name" not in registry and registry.get("no_such_name") is None
    assert len(str(e.value).splitlines()) == 1


def test_an_error_of_a_registry_is_its_own():
    registry = Registry("set", error=DatasetError)
    registry.register("own", lambda size=3: size)
    assert create(registry, "own:size=4") == create(registry, "own", size=4) == 4
    for spec in ("own:width=4", "own:size=4-other", "owm"):
        with pytest.raises(DatasetError):
            create(registry, spec)


def test_declared_names_are_looked_up_without_their_module():
    registry = Registry("thing", {"imret_no_such_module": ["one:size=3", "two_more"]})
    assert "two-more" in registry and registry.find("two-more") == "two_more"
    assert normal(registry, Part("one", (), {"size": 3})) == Part("one")
    assert list(registry) == ["one", "two_more"] and "imret_no_such_module" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        registry["one"]


# --- old spellings


def test_old_spellings_make_the_same():
    assert resolutions("half-more", 512) == resolutions("half_more", 512) == [256, 512, 768]
    assert create_schedule("inverse-sqrt:warmup=10")(9) == 1
    assert View(kind="random-square") == View(kind="random_square")
    assert check_framing("same-scale", "long") == ("same_scale", "long")
    assert AXES["image-size"] is AXES["image_size"]
    assert AXES["scales"].check("half-more") == check_setting("scales", "half-more") == "half_more"
    assert AXES["crop"].check("same-scale") == "same_scale"
    recipe = read_recipe("triplet_sos", ["view.kind=random-square"])
    assert View(**recipe["view"]) == View(**read_recipe("triplet_sos")["view"])
    for name in ("tinytown-train", "gldv2-clean", "retrieval-sfm-120k", "uni-oxford"):
        assert find_card(name) is find_card(name.replace("-", "_"))


@pytest.mark.parametrize("fitted_on", ["tinytown-train", "tinytown_train", "tinytown-train:size=8"])
@pytest.mark.parametrize("judged", ["tinytown-train", "tinytown_train"])
def test_both_spellings_are_one_set_to_a_guard(fitted_on, judged):
    with pytest.raises(WhiteningError, match="fit on another set"):
        guard_fit(fitted_on, judged)


def test_folders_on_disk_keep_their_names():
    places = {
        "tinytown_train": "tinytown-train-v1",
        "tinytown_clips": "tinytown-clips-v1",
        "gldv2_clean": "gldv2",
        "retrieval_sfm_120k": "retrieval-SfM-120k",
        "retrieval_sfm_30k": "retrieval-SfM-30k",
        "uni_oxford": "uni-oxford",
    }
    for name, place in places.items():
        assert find_card(name).folder("data").name == place


@pytest.mark.parametrize("crop", ["same-scale", "same_scale"])
def test_keys_of_a_cache_do_not_change_with_the_spelling(crop):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    text = "(2, 4, 3) uint8 (0.0, 0.0, 1.0, 1.0) same-scale"
    old = hashlib.sha256(pixels.tobytes() + text.encode()).hexdigest()[:32]
    assert image_key(pixels, (0, 0, 1, 1), crop) == old.encode()
