import jax
import numpy as np
import pytest
from random_nets import QUICKLY, identical, largest_difference, random_images, random_variables

import ofa_jax
from ofa_jax import conv


def random_archs(space, count):
    keys = jax.random.split(jax.random.key(7), count)
    return [space.largest(), space.smallest(), *map(space.sample, keys)]


def test_masked_supernet_equals_extracted_subnet(space_to_run, monkeypatch):
    """20 random archs and both ends, with running statistics."""
    space = space_to_run
    net, variables = random_variables(space)
    images = random_images(space, 4)
    masked = jax.jit(net.apply)
    masked(variables, images, space.largest())
    # The subnets run one operation at a time, in XLA's own forms: 22 nets share their shapes, so
    # little is compiled.
    monkeypatch.setattr(conv, "depthwise_conv", conv.grouped_conv)
    monkeypatch.setattr(conv, "dense_conv", conv.direct_conv)
    for arch in random_archs(space, 20):
        subnet, sub_variables = ofa_jax.extract(space, variables, arch)
        expected = masked(variables, images, arch)
        logits = subnet.apply(sub_variables, images)
        assert largest_difference(expected, logits) < 1e-5, space.arch_to_dict(arch)


def test_masked_supernet_equals_extracted_subnet_in_train_mode(space_to_run):
    """Logits and new running statistics, with batch statistics."""
    space = space_to_run
    net, variables = random_variables(space)
    images, arch = random_images(space, 16), space.sample(jax.random.key(7))

    def apply(net, variables, arch):
        return net.apply(variables, images, arch, train=True, mutable=["batch_stats"])

    apply = jax.jit(apply, static_argnums=0, compiler_options=QUICKLY)
    masked, new = apply(net, variables, arch)
    subnet, sub = ofa_jax.extract(space, variables, arch)
    small, sub_new = apply(subnet, sub, None)
    assert largest_difference(masked, small) < 2e-5
    _, sliced = ofa_jax.extract(space, {**variables, **new}, arch)
    assert largest_difference(sliced["batch_stats"], sub_new["batch_stats"]) < 1e-5


def test_subnet_arrays_are_as_small_as_the_arch(tiny):
    _, variables = random_variables(tiny)
    arch = tiny.arch_from_dict({"ks": [5, 3, 7] * 3, "e": [3, 4, 6] * 3, "d": [2, 1, 3]})
    _, sub = ofa_jax.extract(tiny, variables, arch)
    assert "stage1_block2" in sub["params"]
    assert "stage1_block3" not in sub["params"]
    block = sub["params"]["stage3_block1"]
    assert block["depth_conv"]["conv"]["kernel"].shape == (5, 5, 1, 120)
    assert block["se"]["reduce"]["kernel"].shape == (120, 32)
    assert block["point_linear"]["conv"]["kernel"].shape == (120, 64)
    assert set(block["depth_conv"]["conv"]) == {"kernel"}  # no transforms left


def test_the_largest_subnets_arrays_are_the_supernets(tiny):
    _, variables = random_variables(tiny)
    subnet, sub = ofa_jax.extract(tiny, variables, tiny.largest())
    name = "stage2_block3"
    assert identical(sub["params"][name]["se"], variables["params"][name]["se"])
    assert subnet.blocks[-1].kernels == (7,)


def test_variables_of_another_space_are_refused(tiny):
    _, variables = random_variables(ofa_jax.get_space(tiny.name, num_classes=10, head=64))
    with pytest.raises(ValueError, match=r"final_expand_layer.*\(64,\).*at least \(192,\)"):
        ofa_jax.extract(tiny, variables, tiny.smallest())
    _, variables = random_variables(tiny)
    del variables["params"]["stage1_block1"]
    with pytest.raises(ValueError, match="stage1_block1"):
        ofa_jax.extract(tiny, variables, tiny.smallest())


def test_a_batch_of_archs_is_refused(tiny):
    _, variables = random_variables(tiny)
    archs = jax.vmap(tiny.sample)(jax.random.split(jax.random.key(0), 2))
    with pytest.raises(ValueError, match="one arch of"):
        ofa_jax.extract(tiny, variables, archs)


def test_images_of_any_size_run_through_a_subnet(tiny):
    _, variables = random_variables(tiny)
    subnet, sub = ofa_jax.extract(tiny, variables, tiny.smallest())
    assert subnet.apply(sub, np.zeros((2, 28, 28, 3), np.float32)).shape == (2, 10)
