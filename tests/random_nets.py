"""Seeded nets whose every array matters, so that a wrong mask cannot hide."""

import jax
import jax.numpy as jnp
import numpy as np

import ofa_jax

# For programs that run once or twice: compiling takes most of the time.
QUICKLY = {"xla_backend_optimization_level": 0}


def pixels(space):
    """The smallest image that keeps more than one pixel to the end of the net."""
    return 16 if "tiny" in space.name else 64


def random_images(space, batch, seed=0):
    shape = (batch, pixels(space), pixels(space), 3)
    return jax.random.normal(jax.random.key(seed), shape)


def random_variables(space, seed=0):
    """Supernet variables of unit scale everywhere: nothing is at its neutral initial value."""
    net = ofa_jax.build_supernet(space)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), image, space.largest())
    rng = np.random.default_rng(seed)

    def random_leaf(path, shape):
        name = jax.tree_util.keystr(path)
        noise = rng.standard_normal(shape.shape, np.float32)
        if "_matrix" in name:
            return jnp.asarray(np.eye(shape.shape[0], dtype=np.float32) + 0.1 * noise)
        if "var" in name or "scale" in name:
            # A ResNet's branches are added 16 times over; at unit scale its gradients would be so
            # sensitive that float32 and float64 of the reference itself differ by 0.7 %.
            damping = 0.1 if "conv3" in name and "scale" in name else 1.0
            return jnp.asarray(damping * np.exp(0.3 * noise))
        if "bias" in name or "mean" in name:
            return jnp.asarray(0.3 * noise)
        fan_in = np.prod(shape.shape[:-1])
        return jnp.asarray(noise * np.sqrt(1 / fan_in))  # keeps 60 layers from exploding

    return net, jax.tree_util.tree_map_with_path(random_leaf, shapes)


def inside(space, arch, params):
    """Which entries of each supernet parameter the arch uses, worked out with plain loops."""
    used = jax.tree.map(lambda a: np.ones(a.shape, bool), params)
    mark = mark_resnet if space.widths else mark_mobilenet
    mark(space, space.arch_to_dict(arch), used)
    return used


def mark_mobilenet(space, values, used):
    for i, block in enumerate(space.blocks):
        tree = used[block.name]
        kernel, expand = values["ks"][i], values["e"][i]
        if kernel is None:
            used[block.name] = jax.tree.map(np.zeros_like, tree)
            continue
        mid = block.mids[space.expands.index(expand)]
        for bn in (tree["inverted_bottleneck"]["bn"], tree["depth_conv"]["bn"]):
            for array in bn.values():
                array[mid:] = False
        tree["inverted_bottleneck"]["conv"]["kernel"][:, mid:] = False
        tree["point_linear"]["conv"]["kernel"][mid:] = False
        # 3x3 is derived from the whole transformed 5x5, so it reads the 5x5 centre, as 5x5 does.
        margin = 0 if kernel == 7 else 1
        conv = tree["depth_conv"]["conv"]
        frame = np.zeros_like(conv["kernel"])
        frame[margin : 7 - margin, margin : 7 - margin, :, :mid] = True
        conv["kernel"] = frame
        for name in conv:
            if name.endswith("_matrix"):
                conv[name][:] = kernel <= int(name.split("to")[1].split("_")[0])
        if block.squeezes:
            squeeze = block.squeezes[space.expands.index(expand)]
            for part, rows, columns in (("reduce", mid, squeeze), ("expand", squeeze, mid)):
                tree["se"][part]["kernel"][rows:] = False
                tree["se"][part]["kernel"][:, columns:] = False
                tree["se"][part]["bias"][columns:] = False


def mark_resnet(space, values, used):
    def conv_bn(tree, inputs, outputs):
        tree["conv"]["kernel"][..., inputs:, :] = False
        tree["conv"]["kernel"][..., outputs:] = False
        for array in tree["bn"].values():
            array[outputs:] = False

    stem, w = space.stem_block, values["w"]
    mid, width = stem.mids[w[0]], stem.widths[w[1]]
    conv_bn(used["stem"]["conv1"], 3, mid)
    residual = values["d"][0] == space.depths[-1]
    conv_bn(used["stem"]["conv2"], *((mid, mid) if residual else (0, 0)))
    conv_bn(used["stem"]["conv3"], mid, width)
    for i, block in enumerate(space.blocks):
        tree = used[block.name]
        if values["e"][i] is None:
            used[block.name] = jax.tree.map(np.zeros_like, tree)
            continue
        in_width, width = width, block.widths[w[2 + block.stage]]
        mid = block.mids[w[2 + block.stage]][space.expands.index(values["e"][i])]
        conv_bn(tree["conv1"], in_width, mid)
        conv_bn(tree["conv2"], mid, mid)
        conv_bn(tree["conv3"], mid, width)
        if block.position == 0:
            conv_bn(tree["downsample"], in_width, width)
    used["classifier"]["kernel"][width:] = False


def largest_difference(a, b):
    """The largest absolute difference of two trees of arrays, over the largest value of `b`."""
    a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (a, b))
    return float(np.abs(a - b).max() / np.abs(b).max())


def identical(a, b):
    """Whether two trees hold the same bits."""
    same = jax.tree.map(lambda x, y: np.array_equal(np.asarray(x), np.asarray(y)), a, b)
    return all(jax.tree.leaves(same))


GOLDEN_SPACES = (
    "ofa_mbv3_d234_e346_k357_w1.0",
    "ofa_mbv3_d234_e346_k357_w1.2",
    "ofa_proxyless_d234_e346_k357_w1.3",
    "ofa_resnet50",
)


def golden_archs(space):
    """The archs whose figures the reference writes down: both ends and three at random."""
    keys = jax.random.split(jax.random.key(11), 3)
    return [space.largest(), space.smallest(), *map(space.sample, keys)]


def golden_batch():
    """Eight images of 128 px, NHWC, and their labels."""
    rng = np.random.default_rng(11)
    images = rng.standard_normal((8, 128, 128, 3), np.float32)
    return images, rng.integers(0, 10, 8, np.int32)
