"""The real TPU compiler, without a TPU; in an environment of its own, as it prints and stalls:

pip install -e ".[test,tpu]" && pytest -n 0 tests/run/test_tpu.py     # two hours
"""

import re

import pytest
from main_runs import run

pytest.importorskip("libtpu", reason="libtpu is not installed: the extra [tpu]")

IMAGENET = "--config=configs/imagenet_mbv3.py"


# Billions of MACs: of the largest subnet and of the mean, whose blocks a gradient computes again.
LARGEST, MEAN = 0.566, 0.274


@pytest.mark.parametrize(
    ("target", "chips", "part", "way"),
    [("v5e:2x2", 4, 512, "masks"), ("v5e:4x4", 16, 128, "auto")],
)
def test_imagenet_is_profiled_for_a_slice(target, chips, part, way):
    code, out, error = run(
        "--mode=profile", IMAGENET, f"--target={target}", f"--config.train.compute={way}"
    )
    assert code == 0, error
    assert f"{chips} x TPU v5 lite, not attached: 224 px, bfloat16, {part} images a device" in out
    memory = [
        float(m) for m in re.findall(r"memory of a device: ([\d.]+) GB of 17.18 GB, fits", out)
    ]
    assert len(memory) == 1  # one program, of 1, 2 and 4 subnets
    assert ("a subnet, masked" if way == "masks" else "a mean subnet, by widths") in out
    each = LARGEST if way == "masks" else 1.3 * MEAN
    for subnets, step in ((1, "1 subnet"), (4, "4 subnets and the teacher")):
        found = re.search(rf"  step of {step} +([\d,.]+) +([\d,.]+)  [\d,.]+ ms, memory", out)
        flops, moved = (float(figure.replace(",", "")) for figure in found.groups())
        macs = subnets * each + (LARGEST / 3 if subnets > 1 else 0)
        assert 2.7 * 2 * macs * part < flops < 4 * 2 * macs * part
        assert 0.02 < moved / flops < 0.06  # what stays on the chip is not counted
    assert re.search(r"time, by the least of a step; 63% of it at the mean", out)


def test_a_wrong_target_is_named():
    code, _, error = run("--mode=profile", "--config=configs/smoke.py", "--target=v5e:3x3")
    assert code == 2
    assert "--target='v5e:3x3': expected a TPU topology such as v5e:2x2" in error
