import jax
import numpy as np

import ofa_jax
from ofa_jax.search.memory import activation_bytes
from ofa_jax.space import stack


def test_the_largest_of_mobilenet_at_224():
    """By hand: the widest place is stage 1's first block, 16 channels expanded to 96 at 112 px."""
    space = ofa_jax.get_space("ofa_mbv3_d234_e346_k357_w1.0")
    depthwise = 112**2 * 96 + 56**2 * 96
    assert activation_bytes(space, space.largest(), 224) == 4 * depthwise
    assert activation_bytes(space, space.largest(), 224, itemsize=1) == depthwise
    smallest = 112**2 * (16 + 48)  # the expansion itself
    assert activation_bytes(space, space.smallest(), 224) == 4 * smallest


def test_the_largest_resnet_at_224():
    """By hand: stage 1's first block adds a projected shortcut of 256 channels at 56 px."""
    space = ofa_jax.get_space("ofa_resnet50")
    block = 56**2 * (64 + 2 * 256)
    beside = 56**2 * (256 + 88 + 256)  # a later block's last layer: e = 0.35
    stem = 112**2 * (32 + 64)
    assert activation_bytes(space, space.largest(), 224) == 4 * max(block, beside, stem)


def test_one_arch_a_batch_and_vmap_agree(space):
    archs = [
        space.largest(),
        space.smallest(),
        *map(space.sample, jax.random.split(jax.random.key(0), 4)),
    ]
    single = [int(activation_bytes(space, a, 96)) for a in archs]
    assert single[1] < single[0]
    np.testing.assert_array_equal(activation_bytes(space, stack(archs), 96), single)
    mapped = jax.jit(jax.vmap(lambda a: activation_bytes(space, a, 96)))(stack(archs))
    np.testing.assert_array_equal(mapped, single)
    assert single[0] < int(activation_bytes(space, archs[0], 128))


def test_skipped_blocks_hold_nothing():
    space = ofa_jax.get_space("ofa_tiny_d123_e346_k357")
    small = space.smallest()
    wide = space.arch_from_dict({"ks": 3, "e": [3, 6, 6, 3, 6, 6, 3, 6, 6], "d": 1})
    assert activation_bytes(space, wide, 32) == activation_bytes(space, small, 32)
    assert activation_bytes(space, small, 32) == 4 * 32**2 * (16 + 48)
