"""The examples of the public docstrings run as written."""

import doctest

import numpy as np
import pytest

import ofa_jax
from ofa_jax import space
from ofa_jax.families import published
from ofa_jax.search import cost

NAMES = {"np": np, "ofa_jax": ofa_jax, "get_space": ofa_jax.get_space}


@pytest.mark.parametrize(("module", "least"), [(space, 3), (cost, 3), (published, 3)])
def test_the_examples_of_a_module(module, least):
    found = doctest.testmod(module, extraglobs=NAMES)
    assert found.attempted >= least
    assert found.failed == 0
