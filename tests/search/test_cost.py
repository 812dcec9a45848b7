import json
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from random_nets import random_variables

import ofa_jax
from ofa_jax import conv
from ofa_jax.space import stack

PUBLISHED = Path(__file__).parents[3] / "shared/data/once_for_all/published_subnets.json"


def count_macs(jaxpr):
    """Multiply-accumulates of every convolution and matrix product in a traced program."""
    total = 0
    for equation in jaxpr.eqns:
        for inner in jaxprs_in_params(equation.params):
            total += count_macs(inner)
        if equation.primitive.name == "conv_general_dilated":
            kernel, out = equation.invars[1].aval, equation.outvars[0].aval
            total += out.size * int(np.prod(kernel.shape[:3]))  # HWIO
        elif equation.primitive.name == "dot_general":
            left, out = equation.invars[0].aval, equation.outvars[0].aval
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += out.size * int(np.prod([left.shape[i] for i in contracted]))
    return total


@pytest.mark.parametrize("resolution", [64, 75])
def test_macs_and_params_equal_counting_the_extracted_subnet(space, resolution, monkeypatch):
    # One form instead of the two that a program for any platform holds.
    monkeypatch.setattr(conv, "depthwise_conv", conv.grouped_conv)
    monkeypatch.setattr(conv, "dense_conv", conv.direct_conv)
    _, variables = random_variables(space)
    image = jax.ShapeDtypeStruct((1, resolution, resolution, 3), "float32")
    for key in jax.random.split(jax.random.key(0), 3):
        arch = space.sample(key)
        subnet, sub = ofa_jax.extract(space, variables, arch)
        jaxpr = jax.make_jaxpr(subnet.apply)(sub, image).jaxpr
        assert ofa_jax.macs(space, arch, resolution) == count_macs(jaxpr)
        weights = sum(a.size for a in jax.tree.leaves(sub["params"]))
        assert ofa_jax.params(space, arch) == weights


def test_one_arch_a_batch_jit_and_vmap_agree(space):
    archs = [space.largest(), *map(space.sample, jax.random.split(jax.random.key(0), 4))]
    single = [int(ofa_jax.macs(space, a, 96)) for a in archs]
    batch = stack(archs)
    np.testing.assert_array_equal(ofa_jax.macs(space, batch, 96), single)
    mapped = jax.vmap(lambda a: ofa_jax.macs(space, a, 96))(batch)
    rounded = np.asarray(single).astype(mapped.dtype)  # float32 for ResNets, and rounded once
    np.testing.assert_array_equal(mapped, rounded)
    jitted = jax.jit(lambda a, r: ofa_jax.macs(space, a, r))
    np.testing.assert_array_equal(jitted(batch, 96), rounded)
    assert (mapped.dtype == np.int32) == (not space.widths)
    with jax.enable_x64(True):
        wide = jax.jit(lambda a: ofa_jax.macs(space, a, 96))(batch)
        assert wide.dtype == np.int64
        np.testing.assert_array_equal(wide, single)
    counts = [int(ofa_jax.params(space, a)) for a in archs]
    np.testing.assert_array_equal(jax.jit(lambda a: ofa_jax.params(space, a))(batch), counts)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the reference's figures are not here")
def test_published_subnets_have_the_published_costs():
    nets = json.loads(PUBLISHED.read_text())
    assert len(nets) >= 34
    for net in nets:
        space = ofa_jax.get_space(net["space"])
        arch = space.arch_from_dict(net)
        assert ofa_jax.macs(space, arch, net["resolution"]) == net["macs"], net["id"]
        assert ofa_jax.params(space, arch) == net["params"], net["id"]
