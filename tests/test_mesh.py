from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ofa_jax import mesh


def test_a_mesh_takes_the_requested_devices():
    assert mesh.data_mesh().size == len(jax.devices()) == 8
    assert list(mesh.data_mesh(3).devices) == jax.devices()[:3]
    with pytest.raises(ValueError, match="parallel.devices=9: there are 8 devices"):
        mesh.data_mesh(9)


def test_a_batch_that_does_not_divide_is_named():
    mesh.check_batch(mesh.data_mesh(2), 16, 4)
    with pytest.raises(ValueError, match="data.batch_size=15: expected a multiple of the 2 dev"):
        mesh.check_batch(mesh.data_mesh(2), 15)
    with pytest.raises(ValueError, match=r"16: .* the 2 devices times parallel.micro_steps=5"):
        mesh.check_batch(mesh.data_mesh(2), 16, 5)


@pytest.mark.parametrize(
    ("platform", "capability", "expected"),
    [
        ("cpu", None, "float32"), ("tpu", None, "bfloat16"), ("gpu", "7.5", "float32"),
        ("gpu", "8.0", "bfloat16"), ("gpu", "12.0", "bfloat16"), ("gpu", "gfx90a", "bfloat16"),
    ],
)  # fmt: skip
def test_steps_compute_in_bfloat16_where_a_device_has_units_for_it(platform, capability, expected):
    device = SimpleNamespace(platform=platform)
    if capability:
        device.compute_capability = capability
    assert mesh.best_dtype("auto", device) == expected
    assert mesh.best_dtype("float32", device) == "float32"
    assert mesh.best_dtype("bfloat16", device) == "bfloat16"


def test_arrays_are_copied_split_or_spread():
    devices = mesh.data_mesh(4)
    values = {"a": np.arange(24.0).reshape(3, 8), "b": np.arange(3)}
    copied = mesh.replicate(devices, values)
    split = mesh.shard_batch(devices, np.arange(8))
    assert [shard.data.tolist() for shard in split.addressable_shards] == [
        [0, 1], [2, 3], [4, 5], [6, 7],
    ]  # fmt: skip
    for name, array in copied.items():
        assert all(np.array_equal(s.data, values[name]) for s in array.addressable_shards)
    assert mesh.spread(devices, values["a"]).spec == P(None, "data")
    assert mesh.spread(devices, values["b"]).spec == P()  # 3 does not divide by 4
    assert mesh.spread(devices, np.zeros((8, 16, 4))).spec == P(None, "data")
