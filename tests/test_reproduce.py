"""The table of published numbers: each row is whole, can be read, and knows what it lacks."""

import re
import shlex

import pandas as pd
import pytest
import typer

from imret.cli import app, main
from imret.core import DatasetError
from imret.datasets import list_datasets
from imret.datasets.registry import DatasetCard
from imret.reproduce import (
    commands,
    published,
    ready_commands,
    reproduce,
    row_state,
    states,
    states_text,
    to_learn,
    unknown_parts,
)

ROWS = published()
TINY = {
    "name": "tiny",
    "data": "hamlet",
    "weights": "",
    "weights_page": "",
    "command": "imret eval hamlet --embedder resnet18-gem:p=3 --image-size 224",
    "reason": "",
}


@pytest.fixture
def hamlet(monkeypatch):
    "A set that the registry knows, and that is to be asked for."
    card = DatasetCard("hamlet", "A hamlet", "landmarks", "nobody", how="write to the mayor")
    monkeypatch.setattr("imret.reproduce.list_datasets", lambda: ["hamlet"])
    monkeypatch.setattr("imret.reproduce.find_card", {"hamlet": card}.get)


# --- the data


def test_names_are_unique_and_stable_slugs():
    assert ROWS["name"].is_unique
    assert ROWS["name"].map(lambda n: bool(re.fullmatch(r"[a-z0-9_]+(-[a-z0-9_]+)*", n))).all()


def test_every_row_says_what_it_is_and_where_from():
    for column in ("system", "method", "dataset", "protocol", "metric", "unit", "source"):
        assert (ROWS[column].str.strip() != "").all(), column
    for column in ("source_page", "weights_page"):
        assert ROWS[column].str.fullmatch(r"(https?://\S+)?").all(), column
    assert ((ROWS["weights"] == "") == (ROWS["weights_page"] == "")).all()


def test_numbers_are_percent_or_counts():
    numbers = ROWS["published"].dropna()
    percent = ROWS["unit"] == "%"
    assert numbers[percent].between(1, 100).all()
    assert (numbers[~percent] % 1 == 0).all()
    silent = ROWS[ROWS["published"].isna()]
    assert ((silent["note"] != "") | (silent["reason"] != "")).all()


def test_a_row_has_a_command_or_a_reason():
    assert ((ROWS["command"] != "") ^ (ROWS["reason"] != "")).all()
    assert ((ROWS["command"] != "") == (ROWS["data"] != "")).all()


def test_a_number_is_told_once():
    "What one command measures under one protocol has one number, apart from who says so."
    same = ["command", "protocol", "metric"]
    offered = ROWS[(ROWS["command"] != "") & ROWS["verified"]].dropna(subset="published")
    assert (offered.groupby(same)["published"].nunique() == 1).all()


@pytest.mark.parametrize(
    "name, number",
    {
        "solar-roxford5k-medium": 69.9,
        "solar-rparis6k-1m-hard": 33.41,
        "gem-resnet101-roxford5k-hard": 40.1,
        "e2e-gl18-resnet101-rparis6k-medium": 80.6,
        "ap-gem-resnet101-oxford5k": 89.1,
        "rmac-multires-dba20-aqe1-paris6k": 96.58,
        "distil-finetuned-covers": 99.03,
        "covers-triplet512-unrelated-75": 2942,
        "hashing-cub200-64": 70.59,
    }.items(),
)
def test_some_numbers_as_their_sources_print_them(name, number):
    assert ROWS.set_index("name").loc[name, "published"] == number


# --- the commands


def test_commands_begin_with_imret_and_name_their_weights():
    for row in ROWS[ROWS["command"] != ""].to_dict("records"):
        steps = [shlex.split(step) for step in row["command"].split("&&")]
        assert all(step[0] == "imret" for step in steps), row["name"]
        assert row["weights"] in [*steps[-1], ""], row["name"]
        for words in commands(row):
            assert words[1] in row["data"].split(), row["name"]


def test_sets_are_registered():
    named = {name for data in ROWS["data"] for name in data.split()}
    assert named <= set(list_datasets())


def test_what_is_known_is_read_by_the_command_line():
    "A command without the words to learn is one that the parser takes."
    group = typer.main.get_command(app)
    read = 0
    for row in ROWS[ROWS["command"] != ""].drop_duplicates("command").to_dict("records"):
        unknown = to_learn(row, app)
        for words in commands(row):
            if f"imret {words[0]}" in unknown or "-k" in words:
                continue
            kept, skip = [], False
            for word in words[1:]:
                if word.startswith("--"):
                    skip = word in unknown
                if not skip:
                    kept.append(word)
            group.commands[words[0]].make_context(words[0], kept)
            read += 1
    assert read > 20


def test_parts_of_names():
    assert unknown_parts("resnet18-gem:p=3") == ()
    assert unknown_parts("resnet18-wavelet:2-gem-sponge") == ("wavelet:2", "sponge")
    assert unknown_parts("resnet17-gem") == ("resnet17", "gem")


# --- the state


def test_states(hamlet, tmp_path):
    heavy = TINY | {"weights": "net.pth", "weights_page": "https://example.org/net.pth"}
    heavy["command"] += " --weights net.pth"
    assert row_state(TINY, app, tmp_path) == "needs data: hamlet"
    assert row_state(heavy, app, tmp_path) == "needs data: hamlet"
    (tmp_path / "hamlet").mkdir()
    assert row_state(TINY, app, tmp_path) == "runs here"
    assert row_state(heavy, app, tmp_path) == "needs weights: net.pth"
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "net.pth").touch()
    assert row_state(heavy, app, tmp_path) == "runs here"
    words = ready_commands(heavy, app, tmp_path)
    assert words[0][-1] == str(tmp_path / "weights" / "net.pth")
    assert row_state(TINY | {"reason": "private"}, app, tmp_path) == "not offered: private"


def test_states_name_what_is_to_be_learnt(hamlet, tmp_path):
    row = TINY | {
        "data": "hamlet castle",
        "command": "imret eval hamlet --embedder resnet18-sponge-gem --hue 3 && imret dance --a 2",
    }
    wanted = "needs imret to learn: castle, sponge, --hue, imret dance"
    assert row_state(row, app, tmp_path) == wanted


def test_an_error_says_all_that_is_missing(hamlet, tmp_path):
    page = "https://example.org/net.pth"
    row = TINY | {"weights": "net.pth", "weights_page": page}
    row["command"] += " --hue 3 --weights net.pth"
    with pytest.raises(DatasetError) as e:
        ready_commands(row, app, tmp_path)
    for said in ("--hue", "hamlet", "write to the mayor", "net.pth", page, str(tmp_path)):
        assert said in str(e.value)
    with pytest.raises(DatasetError, match="tiny is not offered: private"):
        ready_commands(TINY | {"reason": "private"}, app, tmp_path)


def test_an_unknown_name_tells_the_nearest():
    with pytest.raises(DatasetError, match="did you mean .*solar-roxford5k-medium"):
        reproduce("solar-roxford5k-middle", app)
    with pytest.raises(DatasetError, match="imret reproduce"):
        reproduce("???", app)


def test_the_whole_table(tmp_path):
    table = states(app, tmp_path)
    kinds = table["state"].str.extract(
        r"^(runs here|needs data|needs weights|needs imret|not offered)"
    )
    assert kinds[0].notna().all() and len(table) == len(ROWS)
    text = states_text(table)
    assert all(f" {name} " in text for name in table["name"]) and " nan " not in text
    assert list(pd.unique(table["system"])) == [
        line.rpartition(" (")[0] for line in text.splitlines() if line and line[0] != " "
    ]


def test_the_command(capsys, tmp_path):
    assert main(["reproduce"]) == 0
    assert "solar-roxford5k-medium" in capsys.readouterr().out
    assert main(["reproduce", "covers-multires-same-70"]) == 2
    assert "not offered" in capsys.readouterr().err
    assert main(["reproduce", "--json", str(tmp_path / "all.json")]) == 0
    assert len(pd.read_json(tmp_path / "all.json")) == len(ROWS)
