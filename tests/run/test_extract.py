"""Where a new subnet may go, and what may be replaced."""

import dataclasses
import json

import pytest
from cards import CARD

from ofa_jax.run.card import read_card
from ofa_jax.run.card_writer import write_card
from ofa_jax.run.extract import middle_winner, place_of, winner_archs


@pytest.fixture
def run(tmp_path):
    """A run with a subnet of two files, and something precious beside it."""
    directory = tmp_path / "run/subnets/mine"
    (directory / "orbax").mkdir(parents=True)
    (directory / "orbax/weights").write_text("weights")
    write_card(directory, CARD)
    (tmp_path / "run/checkpoints").mkdir()
    (tmp_path / "run/checkpoints/precious").write_text("days of work")
    return tmp_path / "run"


def test_a_name_is_one_directory_of_the_runs_subnets(run):
    assert place_of(run, "new", overwrite=False) == run / "subnets/new"
    for name in ("..", "../..", "../../escaped", "/tmp/anything", ".", "", "a/b"):
        with pytest.raises(ValueError, match="--name=.*: expected a plain name"):
            place_of(run, name, overwrite=True)
    assert (run / "checkpoints/precious").is_file()


def test_what_is_there_is_replaced_only_when_asked(run):
    with pytest.raises(ValueError, match=r"mine exists: give another --name, or --overwrite"):
        place_of(run, "mine", overwrite=False)
    assert place_of(run, "mine", overwrite=True) == run / "subnets/mine"
    (run / "subnets/mine/.DS_Store").write_text("litter")
    assert place_of(run, "mine", overwrite=True) == run / "subnets/mine"


def test_what_ofa_jax_did_not_write_is_not_replaced(run):
    notes = run / "subnets/mine/orbax/notes.txt"
    notes.write_text("my own")
    with pytest.raises(ValueError, match=r"mine holds orbax/notes.txt, which is not the subnet's"):
        place_of(run, "mine", overwrite=True)
    (run / "subnets/photos").mkdir()
    with pytest.raises(ValueError, match=r"photos holds no readable card.json"):
        place_of(run, "photos", overwrite=True)
    (run / "subnets/link").symlink_to(run / "checkpoints")
    with pytest.raises(ValueError, match=r"link holds no directory"):
        place_of(run, "link", overwrite=True)
    (run / "subnets/gone").symlink_to(run / "nowhere")
    with pytest.raises(ValueError, match=r"gone exists"):
        place_of(run, "gone", overwrite=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../../x"}, "name='../../x': expected a plain name"),
        ({"files": {"../../precious": "0"}}, "files='../../precious': expected a file inside"),
        (
            {"exports": {"onnx": {"file": "../x.onnx", "bytes": 1, "input": "", "difference": 0}}},
            "exports.onnx.file='../x.onnx': expected a plain name",
        ),
    ],
)
def test_a_card_that_points_elsewhere_is_refused(run, change, message):
    path = run / "subnets/mine/card.json"
    path.write_text(json.dumps({**dataclasses.asdict(CARD), **change}))
    with pytest.raises(ValueError, match=message):
        read_card(path.parent)


def test_a_search_that_points_elsewhere_is_refused(run):
    (run / "search").mkdir()
    found = run / "search/found.json"
    found.write_text(json.dumps({"found": [{"name": "macs-3M"}]}))
    assert winner_archs(run) == [str(run / "search/macs-3M.json")]
    assert middle_winner(run) == "macs-3M"
    found.write_text(json.dumps({"found": [{"name": "../../x"}]}))
    with pytest.raises(
        ValueError, match=r"found.json: found\[0\].name='../../x': expected a plain name"
    ):
        winner_archs(run)
    found.write_text(json.dumps({"found": []}))
    with pytest.raises(ValueError, match="has no subnets: --mode=search finds some"):
        middle_winner(run)
