import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_nets import (
    QUICKLY,
    identical,
    inside,
    largest_difference,
    random_images,
    random_variables,
)

import ofa_jax
from ofa_jax.space import stack


def loss_and_gradient(net, images, arch):
    def loss(params, batch_stats):
        variables = {"params": params, "batch_stats": batch_stats}
        logits, new = net.apply(variables, images, arch, train=True, mutable=["batch_stats"])
        return jnp.square(logits).mean(), new["batch_stats"]

    return jax.value_and_grad(loss, has_aux=True)


def test_gradients_are_exactly_zero_outside_the_arch(deep_and_tiny):
    space = deep_and_tiny
    net, variables = random_variables(space)
    images = random_images(space, 4)

    def gradient(params, stats, arch):
        return loss_and_gradient(net, images, arch)(params, stats)[1]

    gradient = jax.jit(gradient, compiler_options=QUICKLY)

    for seed, arch in enumerate([space.smallest(), space.sample(jax.random.key(5))]):
        used = inside(space, arch, variables["params"])
        for (path, g), u in zip(
            jax.tree_util.tree_leaves_with_path(
                gradient(variables["params"], variables["batch_stats"], arch)
            ),
            jax.tree.leaves(used),
            strict=True,
        ):
            name = f"{seed} {jax.tree_util.keystr(path)}"
            np.testing.assert_array_equal(np.asarray(g)[~u], 0, err_msg=name)
            if u.any() and "kernel" in name:  # and it reaches what is used, but for dead ReLUs
                alive = 0.3 if "se" in name else 0.5 if space.widths else 0.9
                assert (np.asarray(g)[u] != 0).mean() > alive, name


def test_masked_gradients_are_the_subnets(deep_and_tiny):
    space = deep_and_tiny
    net, variables = random_variables(space)
    images, arch = random_images(space, 16), space.sample(jax.random.key(8))

    def loss(params, net, stats, arch):
        variables = {"params": params, "batch_stats": stats}
        logits, _ = net.apply(variables, images, arch, train=True, mutable=["batch_stats"])
        return jnp.square(logits).mean()

    gradient = jax.jit(jax.grad(loss), static_argnums=1, compiler_options=QUICKLY)
    subnet, sub = ofa_jax.extract(space, variables, arch)
    masked = gradient(variables["params"], net, variables["batch_stats"], arch)
    small = gradient(sub["params"], subnet, sub["batch_stats"], None)
    largest = max(np.abs(g).max() for g in jax.tree.leaves(small))
    for path, g in jax.tree_util.tree_leaves_with_path(small):
        # A derived filter has no gradient of its own; every other weight's is the slice.
        if "depth_conv']['conv" not in jax.tree_util.keystr(path):
            expected = select(masked, path)[tuple(slice(n) for n in g.shape)]
            error = np.abs(expected - g).max() / largest
            assert error < 1e-4, (jax.tree_util.keystr(path), error)


def select(tree, path):
    for entry in path:
        tree = tree[entry.key]
    return tree


def test_running_statistics_of_inactive_channels_never_move(tiny):
    net, variables = random_variables(tiny)
    arch = tiny.smallest()
    apply = jax.jit(loss_and_gradient(net, random_images(tiny, 8), arch))
    (_, new), _ = apply(variables["params"], variables["batch_stats"])
    used = inside(tiny, arch, variables["params"])
    moved = 0
    for (path, after), before in zip(
        jax.tree_util.tree_leaves_with_path(new),
        jax.tree.leaves(variables["batch_stats"]),
        strict=True,
    ):
        active = used
        for entry in path[:-1]:
            active = active[entry.key]
        same = np.asarray(after) == np.asarray(before)
        np.testing.assert_array_equal(same[~active["bias"]], True)
        moved += (~same[active["bias"]]).sum()
    assert moved > 100


def test_running_statistics_follow_pytorchs_rule(tiny):
    net, variables = random_variables(tiny)
    images = random_images(tiny, 8)
    collections = ["batch_stats", "moments"]
    apply = jax.jit(functools.partial(net.apply, train=True, mutable=collections))
    _, new = apply(variables, images, tiny.largest())
    before = variables["batch_stats"]["first_conv"]["bn"]
    after, batch = new["batch_stats"]["first_conv"]["bn"], new["moments"]["first_conv"]["bn"]
    count = 8 * 16 * 16
    np.testing.assert_allclose(after["mean"], 0.9 * before["mean"] + 0.1 * batch["mean"], rtol=1e-5)
    unbiased = batch["var"] * count / (count - 1)
    np.testing.assert_allclose(after["var"], 0.9 * before["var"] + 0.1 * unbiased, rtol=1e-5)


def test_vmap_over_archs_equals_a_loop(tiny):
    net, variables = random_variables(tiny)
    images = random_images(tiny, 4)
    archs = [
        tiny.largest(),
        tiny.smallest(),
        *map(tiny.sample, jax.random.split(jax.random.key(2), 6)),
    ]
    apply = jax.jit(net.apply)
    looped = jnp.stack([apply(variables, images, arch) for arch in archs])
    batched = jax.jit(jax.vmap(net.apply, (None, None, 0)))(variables, images, stack(archs))
    assert largest_difference(batched, looped) < 1e-5
    distances = np.abs(np.asarray(looped)[:, None] - np.asarray(looped)[None]).max((2, 3))
    assert distances[~np.eye(8, dtype=bool)].min() > 1e-2  # eight different nets


def test_one_compilation_serves_every_arch(tiny):
    net, variables = random_variables(tiny)
    traces = []

    @jax.jit
    def apply(arch):
        traces.append(1)
        return net.apply(variables, random_images(tiny, 2), arch)

    for key in jax.random.split(jax.random.key(0), 10):
        apply(tiny.sample(key))
    assert len(traces) == 1


def test_dropout_needs_train_and_a_key(tiny):
    net, variables = random_variables(tiny)
    images, largest = random_images(tiny, 4), tiny.largest()
    apply = jax.jit(functools.partial(net.apply, train=True, mutable=["batch_stats"]))
    plain, _ = apply(variables, images, largest)
    again, _ = apply(variables, images, largest)
    dropped, _ = apply(variables, images, largest, rngs={"dropout": jax.random.key(0)})
    assert identical(plain, again)
    assert largest_difference(dropped, plain) > 1e-2


def test_initial_weights_are_the_references(tiny):
    net = ofa_jax.build_supernet(tiny)
    image = jnp.zeros((1, 16, 16, 3))
    params = jax.jit(net.init)(jax.random.key(0), image, tiny.largest())["params"]
    block = params["stage3_block3"]
    assert np.std(block["inverted_bottleneck"]["conv"]["kernel"]) == pytest.approx(
        np.sqrt(2 / 384), rel=0.05
    )
    assert np.std(block["depth_conv"]["conv"]["kernel"]) == pytest.approx(
        np.sqrt(2 / (49 * 384)), rel=0.05
    )
    np.testing.assert_array_equal(block["depth_conv"]["conv"]["7to5_matrix"], np.eye(25))
    assert np.abs(params["classifier"]["kernel"]).max() == pytest.approx(1 / 16, rel=0.01)
    np.testing.assert_array_equal(params["classifier"]["bias"], 0)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 16, 16), "float32", r"shape \(2, 16, 16\): expected \[batch, height, width, 3\]"),
        ((2, 16, 16, 1), "float32", r"shape \(2, 16, 16, 1\)"),
        ((2, 3, 16, 16), "float32", r"shape \(2, 3, 16, 16\)"),
        ((2, 16, 16, 3), "uint8", "uint8: expected normalised float32"),
    ],
)
def test_wrong_images_are_named(tiny, shape, dtype, message):
    net, variables = random_variables(tiny)
    with pytest.raises(ValueError, match=message):
        net.apply(variables, jnp.zeros(shape, dtype), tiny.largest())


def test_a_missing_or_needless_arch_is_named(tiny):
    net, variables = random_variables(tiny)
    images = random_images(tiny, 1)
    with pytest.raises(ValueError, match="the supernet needs an arch"):
        net.apply(variables, images)
    subnet, sub_variables = ofa_jax.extract(tiny, variables, tiny.smallest())
    with pytest.raises(ValueError, match="a subnet takes no arch"):
        subnet.apply(sub_variables, images, tiny.smallest())
    with pytest.raises(ValueError, match="one arch of"):
        net.apply(variables, images, stack([tiny.largest()] * 2))
