"""The parts of a search around the search itself."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import pytest

import ofa_jax
from ofa_jax.run.config import from_dict
from ofa_jax.run.costs import check_measured_here
from ofa_jax.run.search import SearchRun, names_of
from ofa_jax.search.evolution import Found
from ofa_jax.subnets.latency import machine

CONFIG = from_dict(
    {
        "curriculum": ("full",),
        "phases": {"full": {"kernels": (7,), "expands": (6,), "depths": (3,), "distill": 0.0}},
    }
)


def with_search(**fields):
    return dataclasses.replace(CONFIG, search=dataclasses.replace(CONFIG.search, **fields))


def test_winners_of_like_costs_have_names_of_their_own():
    space = ofa_jax.get_space("ofa_tiny_d123_e346_k357")
    run = SearchRun(CONFIG, None, SimpleNamespace(space=space), None, None, None, None)
    one, other = (space.sample(jax.random.key(i)) for i in (0, 1))
    winners = [
        Found(one, 16, 0.9, 1_234_100.0), Found(other, 16, 0.9, 1_234_200.0),
        Found(one, 24, 0.9, 1_234_300.0), Found(other, 16, 0.9, 1_234_200.0),
        Found(one, 16, 0.9, 2e6),
    ]  # fmt: skip
    names = ["macs-1.234M", "macs-1.234M-2", "macs-1.234M-3", "macs-1.234M-2", "macs-2M"]
    assert names_of(run, winners) == names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 8}, "measured with batch_size 8, not 1: move it away to measure again, or"),
        ({"dtype": "bfloat16"}, "measured with dtype 'bfloat16', not 'float32'"),
        ({"machine": {"processor": "Z80"}}, "measured with processor 'Z80', not "),
        ({"machine": "x"}, "measured with processor None, not "),
    ],
)
def test_latency_of_elsewhere_is_not_taken_for_that_of_here(tmp_path, change, message):
    here = {"batch_size": 1, "dtype": "float32", "machine": machine()}
    config, path = with_search(cost="latency"), tmp_path / "latency.json"
    check_measured_here(config, tmp_path)  # nothing was measured yet
    path.write_text(json.dumps(here))
    check_measured_here(config, tmp_path)
    path.write_text(json.dumps({**here, **change}))
    with pytest.raises(ValueError, match=f"latency.json was {message}"):
        check_measured_here(config, tmp_path)
    check_measured_here(with_search(cost="macs"), tmp_path)
    check_measured_here(with_search(cost="latency", latency_table=str(path)), tmp_path)
