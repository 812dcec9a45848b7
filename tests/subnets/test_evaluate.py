import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_nets import random_variables

import ofa_jax
from configs import smoke
from ofa_jax import mesh
from ofa_jax.normalization import Normalization, normalize_images
from ofa_jax.run.config import from_dict
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.evaluate import (
    calibration_images,
    evaluate_grid,
)
from ofa_jax.subnets.calibrate import GROUP, group
from ofa_jax.subnets.evaluate import _sums_of_each, grid, measure


def test_the_grid_has_the_corners_of_the_open_choices(tiny, small_resnet):
    names = set(grid(tiny))
    assert names == {
        "largest", "smallest", "d1-e3-k7", "d1-e6-k3", "d1-e6-k7", "d3-e3-k3", "d3-e3-k7",
        "d3-e6-k3",
    }  # fmt: skip
    one = grid(tiny, tiny.open_choices((7,), (6,), (3,)))
    assert list(one) == ["largest"]
    corners = grid(small_resnet)
    assert set(corners) == {
        "largest", "smallest", "d0-e0.25-w1", "d0-e0.5-w0.5", "d0-e0.5-w1", "d1-e0.25-w0.5",
        "d1-e0.25-w1", "d1-e0.5-w0.5",
    }  # fmt: skip
    values = small_resnet.arch_to_dict(corners["d1-e0.25-w0.5"])
    assert values == {"e": [0.25] * 4, "d": [1] * 3, "w": [0] * 4}
    wide = grid(small_resnet, small_resnet.open_choices(widths=(0.75, 1.0)))
    np.testing.assert_array_equal(wide["d1-e0.25-w0.75"].width, [1] * 4)
    assert ofa_jax.params(small_resnet, wide["largest"]) > 100_000


@pytest.mark.slow
def test_four_devices_evaluate_what_one_does():
    config = from_dict(smoke.get_config().to_dict())
    net, variables = random_variables(config.search_space(10))
    choices = net.space.open_choices((3,), (4,), (2,))
    dataset, rows = load_dataset(config.data), []
    for count in (1, 4):
        devices = mesh.data_mesh(count)
        everywhere = mesh.replicate(devices, variables)
        rows += evaluate_grid(net, everywhere, config, dataset, devices, "held_out", choices)
    one, four = rows
    assert one["name"] == "d2-e4-k3"
    assert four["top1"] == one["top1"]  # each of the 180 images once, padded to 200
    np.testing.assert_allclose(four["loss"], one["loss"], rtol=1e-4)
    # 400 images in two batches of 200; seven devices divide 196 of them.
    for count, size in ((4, 200), (7, 196)):
        batches = calibration_images(config, dataset, mesh.data_mesh(count), 16)
        assert [len(batch) for batch in batches] == [size] * 2


def test_many_subnets_measure_as_one_by_one(tiny):
    net, variables = random_variables(tiny)
    archs = [tiny.largest(), tiny.smallest(), tiny.sample(jax.random.key(2))]
    rng, normal, devices = np.random.default_rng(0), Normalization(), mesh.data_mesh(1)
    batches = [
        {
            "image": rng.integers(0, 256, (12, 16, 16, 3)).astype(np.uint8),
            "label": rng.integers(0, 10, 12).astype(np.int32),
            "weight": weight.astype(np.float32),
        }
        for weight in (np.ones(12), np.arange(12) < 7)
    ]
    stats = [jax.tree.map(lambda a, f=f: a * f, variables["batch_stats"]) for f in (1, 1.1, 1.2)]
    stacked = jax.tree.map(lambda *rows: jnp.stack([*rows, *rows[-1:] * (GROUP - 3)]), *stats)
    compiled = _sums_of_each._cache_size()
    figures = measure(net, variables["params"], stacked, group(archs), batches, normal, devices)
    (first,) = measure(
        net, variables["params"], stacked, group(archs[:1]), batches, normal, devices
    )
    assert first == figures[0]
    assert _sums_of_each._cache_size() == compiled + 1  # one program for any number
    for arch, own, figure in zip(archs, stats, figures, strict=True):
        correct = loss = 0.0
        for batch in batches:
            images = normalize_images(batch["image"], *normal)
            logits = net.apply({**variables, "batch_stats": own}, images, arch)
            nats = -jax.nn.log_softmax(logits)[np.arange(12), batch["label"]]
            correct += float(((logits.argmax(-1) == batch["label"]) * batch["weight"]).sum())
            loss += float((nats * batch["weight"]).sum())
        assert figure["top1"] == pytest.approx(correct / 19)
        assert figure["loss"] == pytest.approx(loss / 19, rel=1e-4)


def test_evaluate_without_a_config_is_what_the_run_measures(tiny):
    net, variables = random_variables(tiny)
    arch, rng = tiny.sample(jax.random.key(3)), np.random.default_rng(1)
    batches = [
        {"image": rng.integers(0, 256, (n, 16, 16, 3), np.uint8),
         "label": rng.integers(0, 10, n, np.int32)} for n in (12, 5)
    ]  # fmt: skip
    one = mesh.data_mesh(1)
    found = ofa_jax.evaluate(net, variables, arch, batches, mesh=one)
    images = np.concatenate([batch["image"] for batch in batches])
    labels = np.concatenate([batch["label"] for batch in batches])
    logits = net.apply(variables, normalize_images(images), arch)
    nats = -jax.nn.log_softmax(logits)[np.arange(17), labels]
    assert found["top1"] == pytest.approx(float((logits.argmax(-1) == labels).mean()))
    assert found["loss"] == pytest.approx(float(nats.mean()), rel=1e-4)
    subnet, own = ofa_jax.extract(tiny, variables, arch)
    alone = ofa_jax.evaluate(subnet, own, None, batches, mesh=one)
    assert alone["top1"] == found["top1"]
    assert alone["loss"] == pytest.approx(found["loss"], rel=1e-4)
    with pytest.raises(ValueError, match="no image of the split could be read"):
        ofa_jax.evaluate(net, variables, arch, [], mesh=one)
