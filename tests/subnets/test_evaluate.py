import numpy as np

import ofa_jax
from ofa_jax.subnets.evaluate import grid


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
