"""Branches compute what masks do: results, gradients, statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import MBV3, RESNET, SMALL_MOBILENET, SMALL_RESNET, slow
from random_nets import QUICKLY, random_images, random_variables

import ofa_jax
from ofa_jax import conv, layers
from ofa_jax.branches import Branch, switch
from ofa_jax.network import best_compute


def trained(net, variables, images, arch):
    """((loss, (logits, changed collections)), gradient) of one arch in train mode."""

    def loss(params):
        own = {"params": params, "batch_stats": variables["batch_stats"]}
        mutable = ["batch_stats", "moments"]
        logits, changed = net.apply(own, images, arch, train=True, mutable=mutable)
        return jnp.square(logits).mean(), (logits, changed)

    return jax.value_and_grad(loss, has_aux=True)(variables["params"])


def without_inactive(moments):
    """Moments with zeros where no channel is active; masks have what passed by there."""
    if "active" not in moments:
        return {name: without_inactive(tree) for name, tree in moments.items()}
    return {name: value * moments["active"] for name, value in moments.items()}


def compare_gradients(mine, theirs):
    """Equal as a whole and each by itself; zeros exactly."""
    difference = jax.tree.map(jnp.subtract, mine, theirs)
    whole = float(optax.tree.norm(theirs))
    assert float(optax.tree.norm(difference)) < 1e-4 * whole
    for (path, apart), array in zip(
        jax.tree_util.tree_leaves_with_path(difference), jax.tree.leaves(theirs), strict=True
    ):
        name = jax.tree_util.keystr(path)
        bound = 1e-3 * float(jnp.linalg.norm(array)) + 1e-4 * whole
        assert float(jnp.linalg.norm(apart)) <= bound * bool(array.any()), name


@pytest.fixture
def smooth(deep_and_tiny, monkeypatch):
    """Activations without kinks, which both ways share.

    Where an input lies on a kink, one rounding tips the gradient: images moved by 1e-7 change that
    of MobileNetV3's masks by 2e-3. Bottlenecks pass everything, as theirs applied twice must be as
    once; and their pooling takes every other pixel.
    """
    acts = {"relu": jnp.tanh, "relu6": jnp.tanh, "h_swish": jax.nn.silu}
    if deep_and_tiny.widths:
        acts = {"relu": lambda x: x}
        monkeypatch.setattr(conv, "max_pool", lambda x, size, stride: x[:, ::stride, ::stride])
    for name, act in acts.items():
        monkeypatch.setitem(layers.ACTIVATIONS, name, act)
    monkeypatch.setattr(jax.nn, "relu", jnp.tanh)
    monkeypatch.setattr(jax.nn, "hard_sigmoid", jax.nn.sigmoid)
    jax.clear_caches()  # what was traced has the others
    yield
    jax.clear_caches()


@pytest.mark.parametrize(
    ("deep_and_tiny", "way"),
    [
        (SMALL_MOBILENET, "branches"),
        *slow((SMALL_RESNET, "branches"), (MBV3, "branches"), (SMALL_MOBILENET, "widths")),
    ],
    indirect=["deep_and_tiny"],
)  # a minute each
@pytest.mark.usefixtures("smooth")
def test_branches_equal_masks_in_both_families(deep_and_tiny, way):
    space = deep_and_tiny
    net, variables = random_variables(space)
    images = random_images(space, 8)
    masks, branches = (
        jax.jit(functools.partial(trained, net.clone(compute=compute)), compiler_options=QUICKLY)
        for compute in ("masks", way)
    )
    sampled = [space.sample(jax.random.key(seed)) for seed in range(3)]
    for arch in [space.largest(), space.smallest(), *sampled]:
        expected, gradient = masks(variables, images, arch)
        (loss, (logits, changed)), branched = branches(variables, images, arch)
        expected_loss, (expected_logits, expected_changed) = expected
        np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
        scale = np.abs(expected_logits).max()
        np.testing.assert_allclose(logits, expected_logits, atol=1e-5 * scale)
        for collection in (changed, expected_changed):
            collection["moments"] = without_inactive(collection["moments"])
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4),
            changed,
            expected_changed,
        )
        compare_gradients(branched, gradient)
    assert branches._cache_size() == 1


@pytest.mark.parametrize("way", ["branches", "widths"])
def test_branches_equal_masks_by_running_statistics(deep_and_tiny, way):
    space = deep_and_tiny
    net, variables = random_variables(space)
    images = random_images(space, 4)
    branches = jax.jit(net.clone(compute=way).apply, compiler_options=QUICKLY)
    masks = jax.jit(net.apply, compiler_options=QUICKLY)
    for seed in range(4):
        arch = space.sample(jax.random.key(seed))
        expected = masks(variables, images, arch)
        got = branches(variables, images, arch)
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_branches_initialise_as_masks(tiny):
    image = jnp.zeros((1, 16, 16, 3))
    trees = [
        jax.jit(ofa_jax.build_supernet(tiny, compute).init, compiler_options=QUICKLY)(
            jax.random.key(0), image, tiny.largest()
        )
        for compute in ("masks", "branches", "widths")
    ]
    for tree in trees[1:]:
        jax.tree.map(np.testing.assert_array_equal, tree, trees[0])


def power(exponent, factor, x):
    return factor * x**exponent, {"exponent": jnp.int32(exponent)}


def test_switch_has_the_gradient_of_the_drawn_branch():
    branches = [Branch(power, (exponent,)) for exponent in (1, 2, 3)]

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=2, has_aux=True)
    def run(choice, factor, x):
        return switch(branches, choice, factor, x)

    for choice, exponent in enumerate((1, 2, 3)):
        (value, aux), slope = run(choice, 5.0, 2.0)
        assert (float(value), int(aux["exponent"])) == (5 * 2**exponent, exponent)
        assert float(slope) == 5 * exponent * 2 ** (exponent - 1)


def test_another_way_to_compute_is_refused(tiny):
    with pytest.raises(ValueError, match="compute='auto': expected one of masks, branches, widths"):
        ofa_jax.build_supernet(tiny, "auto")


def test_auto_is_what_suits_the_backend_and_the_space(tiny):
    resnet = ofa_jax.get_space(RESNET)  # nine variants of a block and more
    ways = {"cpu": ("branches", "branches"), "tpu": ("widths", "masks"), "gpu": ("masks", "masks")}
    for platform, expected in ways.items():
        assert tuple(best_compute("auto", platform, s) for s in (tiny, resnet)) == expected
    assert best_compute("masks", "tpu", tiny) == "masks"
