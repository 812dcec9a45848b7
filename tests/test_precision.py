"""Nothing follows JAX's defaults: 64-bit mode and strict promotion give the same types and values.

Programs are traced, which shows every type; the slow test runs them all.
"""

import contextlib
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import slow

from configs import smoke
from ofa_jax import mesh
from ofa_jax.files import read_arrays
from ofa_jax.layers import Classifier, ConvBN
from ofa_jax.network import build_supernet
from ofa_jax.run.config import from_dict
from ofa_jax.run.programs import Setting, step_arguments
from ofa_jax.run.step import settings
from ofa_jax.search import load_latency_table, load_predictor
from ofa_jax.search.evolution import evolve
from ofa_jax.search.front import find_front
from ofa_jax.search.latency import parts
from ofa_jax.search.predictor import (
    Predictor,
    Recipe,
    feature_count,
    save_predictor,
    train_predictor,
)
from ofa_jax.subnets.calibrate import batch_moments_of_each, group
from ofa_jax.subnets.evaluate import _sums_of_each
from ofa_jax.train.mix import mix
from ofa_jax.train.sort_width import sort_width
from ofa_jax.train.step import train_step

KEY = jax.random.key(0)
DEFAULTS = {"jax_enable_x64": False, "jax_numpy_dtype_promotion": "standard"}
X64, STRICT = {"jax_enable_x64": True}, {"jax_numpy_dtype_promotion": "strict"}


@contextlib.contextmanager
def jax_config(**values):
    """For all threads, as an environment variable is: Orbax has its own."""
    for key, value in values.items():
        jax.config.update(key, value)
    try:
        yield
    finally:
        for key in values:
            jax.config.update(key, DEFAULTS[key])


@pytest.fixture(params=[X64, STRICT], ids=["x64", "strict"])
def unusual(request):
    """A context in which JAX's defaults are others."""
    return functools.partial(jax_config, **request.param)


# -- traced ----------------------------------------------------------------------------------------

MOBILE = {"stem": 8, "first": 8, "kernels": (3, 5), "expands": (3, 4), "depths": (1, 2),
          "stages": smoke.STAGES, "head": 16, "features": 16}  # fmt: skip
RESNET = {"name": "ofa_resnet50", "stem": 16, "depths": (0, 1), "expands": (0.25, 0.5),
          "widths": (0.5, 1.0), "stages": ({"width": 32, "stride": 2, "depth": 1},)}  # fmt: skip
SANDWICH = {"subnets": 2, "draw": "sandwich", "source": "largest", "ramp_epochs": 1.0}
MIXED = {"augment": {"mixup": 0.2, "cutmix": 1.0}}


def config(space=MOBILE, phase=SANDWICH, **sections):
    return from_dict({"space": space, "curriculum": ("all",), "phases": {"all": phase}, **sections})


STEPS = {
    "masks": config(),
    "branches in bfloat16": config(
        data=MIXED, distill={"loss": "alpha"},
        train={"optimizer": "adamw", "clip": 1.0, "ema": 0.9, "dtype": "bfloat16"},
    ),
    "a ResNet over devices": config(
        RESNET, distill={"loss": "mse"}, parallel={"subnets": "same", "statistics": "global"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_a_step_keeps_its_types(unusual, name):
    config = STEPS[name]
    compute = "branches" if "branches" in name else "masks"
    net = build_supernet(config.search_space(10), compute)
    with unusual():
        setting = Setting(config, net, mesh.data_mesh(2))
        state, *others = step_arguments(setting)
        step = functools.partial(train_step, net, settings(config, setting.devices, 2))
        after, metrics = jax.eval_shape(step, state, *others)
    expected = dtypes(step_arguments(setting)[0])
    assert set(jax.tree.leaves(expected)) == {"float32", "int32"}
    assert dtypes(state) == dtypes(after) == expected
    assert set(jax.tree.leaves(dtypes(metrics))) == {"float32"}


def dtypes(tree):
    return jax.tree.map(lambda leaf: leaf.dtype.name, tree)


def test_calibration_and_evaluation_keep_their_types(unusual):
    case = STEPS["branches in bfloat16"]
    net = build_supernet(case.search_space(10))
    image = jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.float32)
    labels, weight = jax.ShapeDtypeStruct((4,), jnp.int32), jax.ShapeDtypeStruct((4,), jnp.float32)
    with unusual():
        archs = group([net.space.smallest(), net.space.largest()])
        variables = jax.eval_shape(net.init, KEY, image, net.space.largest())
        moments = jax.eval_shape(functools.partial(batch_moments_of_each, net), variables, archs,
                                 image)  # fmt: skip
        batch = {"image": image.update(dtype=jnp.uint8), "label": labels, "weight": weight}
        sums = jax.eval_shape(functools.partial(_sums_of_each, net, case.data.normalization),
                              variables["params"], moments["stats"], archs, batch)  # fmt: skip
    assert set(jax.tree.leaves(dtypes((moments["stats"], sums)))) == {"float32"}
    assert set(jax.tree.leaves(dtypes(archs))) == {"int32"}


# -- run -------------------------------------------------------------------------------------------


def same(found, expected):
    assert dtypes(found) == dtypes(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6, 1e-6), found, expected)


@pytest.fixture(scope="module", params=["mobile", *slow("resnet")])
def space(request):
    return config({"mobile": MOBILE, "resnet": RESNET}[request.param]).search_space(10)


def test_samples_are_the_same(unusual, space):
    def sampled():
        archs = jax.vmap(space.sample)(jax.random.split(KEY, 8))
        images = jax.random.uniform(KEY, (4, 4, 4, 3), jnp.float32)
        labels = jnp.eye(4, 3, dtype=jnp.float32)
        mixed = [mix(key, images, labels, 0.2, 1.0) for key in jax.random.split(KEY, 2)]
        convolved, conv = ConvBN(4).init_with_output(KEY, images, train=True)
        logits, classifier = Classifier(3, 0.5).init_with_output(
            {"params": KEY, "dropout": KEY}, convolved[:, 0, 0], train=True
        )
        return archs, mixed, conv, classifier, logits

    with unusual():
        found = jax.device_get(sampled())
    same(found, jax.device_get(sampled()))


def test_the_same_channels_are_important(unusual, space):
    net = build_supernet(space)
    image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    shapes = jax.eval_shape(net.init, KEY, image, space.largest())
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda a: rng.standard_normal(a.shape, np.float32), shapes)
    with unusual():
        found = jax.device_get(sort_width(space, variables, 0))
    same(found, jax.device_get(sort_width(space, variables, 0)))


def found(space, directory):
    """What a search of 20 made-up accuracies and a made-up latency table finds."""
    archs = jax.vmap(space.sample)(jax.random.split(KEY, 20))
    accuracies, recipe = np.linspace(0.5, 0.9, 20), Recipe(epochs=10, hidden=(8,))
    trained = train_predictor(space, archs, np.full(20, 16), accuracies, KEY, recipe)
    save_predictor(directory / "p.npz", trained)
    predictor = load_predictor(directory / "p.npz", space)
    table = load_latency_table(directory / "table.json", space)
    common = {"resolutions": (16,), "key": KEY, "generations": 2}
    (best,) = evolve(space, predictor, table, (1e5,), population=4, **common)
    front = find_front(space, predictor, table, population=128, **common)
    traced = [jax.jit(function)(space.smallest(), 16) for function in (predictor, table)]
    return jax.device_get((predictor.params, traced, best, front))


@pytest.fixture(scope="module")
def search_directory(space, tmp_path_factory):
    keys = dict.fromkeys(p.key for part in parts(space, 16) for p in part.pieces.flat)
    table = {key: {"median": n / 7} for n, key in enumerate(keys)}
    directory = tmp_path_factory.mktemp("search")
    (directory / "table.json").write_text(json.dumps({"unit": "ms", "resolutions": {16: table}}))
    return directory


@pytest.fixture(scope="module")
def usually_found(space, search_directory):
    return found(space, search_directory)


def test_a_search_finds_the_same(unusual, space, search_directory, usually_found):
    with unusual():
        unusually = found(space, search_directory)
    assert set(jax.tree.leaves(dtypes(unusually[:2]))) == {"float32"}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-6, 1e-6), unusually, usually_found
    )


def test_a_predictor_of_other_precision_is_read_as_float32(space, tmp_path):
    bins = ((16, 17),)
    shape = (feature_count(space, bins), 1)
    params = {"out": {"kernel": np.full(shape, 0.01), "bias": np.zeros(1, np.float16)}}
    save_predictor(tmp_path / "p.npz", Predictor(space, bins, params, {}))
    assert read_arrays(tmp_path / "p.npz")["out/kernel"].dtype == np.float64
    predictor = load_predictor(tmp_path / "p.npz", space)
    assert set(jax.tree.leaves(dtypes(predictor.params))) == {"float32"}
    params["out"]["kernel"][0] = 1e300
    save_predictor(tmp_path / "p.npz", Predictor(space, bins, params, {}))
    with pytest.raises(ValueError, match="out gives numbers beyond 32 bits"):
        load_predictor(tmp_path / "p.npz", space)
