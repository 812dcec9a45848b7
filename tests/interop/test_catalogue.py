import json
from pathlib import Path

import jax
import numpy as np
import pytest
from random_nets import random_variables

import ofa_jax
from ofa_jax import interop
from ofa_jax.run.extract import read_arch

PUBLISHED = Path(__file__).parents[3] / "shared/data/once_for_all/published_subnets.json"


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the reference's archs are not here")
def test_the_package_has_all_published_archs():
    found = interop.published()
    rows = json.loads(PUBLISHED.read_text())
    assert len(found) == len(rows) == 50
    for row in rows:
        net = found[row["id"]]
        assert net.space.arch_to_dict(net.arch) == {key: row[key] for key in ("ks", "e", "d")}
        assert net.resolution == row["resolution"]
        assert ofa_jax.macs(net.space, net.arch, net.resolution) == row["macs"]
        assert ofa_jax.params(net.space, net.arch) == row["params"]


def test_a_published_arch_by_its_name():
    name = "note10_lat-64ms_top1-80.2_finetune-75"
    space = ofa_jax.get_space("ofa_mbv3_d234_e346_k357_w1.2", num_classes=10, dropout=0.0)
    arch, resolution, source = read_arch(space, f"published:{name}")
    assert (resolution, source) == (260, name)
    assert space.arch_to_dict(arch) == space.arch_to_dict(interop.published()[name].arch)
    with pytest.raises(
        ValueError, match="is of ofa_mbv3_d234_e346_k357_w1.2, the supernet of ofa_"
    ):
        read_arch(ofa_jax.get_space("ofa_mbv3_d234_e346_k357_w1.0"), f"published:{name}")
    with pytest.raises(ValueError, match=f"note10_lat-64ms: no such arch; the nearest: {name}"):
        read_arch(space, "published:note10_lat-64ms")


def test_a_published_subnet_is_extracted_at_once():
    found = interop.published()
    net = found["note10_lat-64ms_top1-80.2_finetune-75"]
    assert net.space == ofa_jax.get_space("ofa_mbv3_d234_e346_k357_w1.2")
    assert (net.resolution, net.top1, net.epochs) == (260, 0.802, 75)
    assert (net.device, net.latency, net.batch) == ("note10", 64.0, 1)
    tx2 = found["tx2_gpu16-47ms_top1-72.9_finetune-25"]
    assert (tx2.device, tx2.latency, tx2.batch) == ("tx2", 47.0, 16)
    flops = found["flops-595M_top1-80.0_finetune-75"]
    assert (flops.device, flops.latency) == ("", None)
    _, variables = random_variables(net.space)
    subnet, own = ofa_jax.extract(net.space, variables, net.arch)
    logits = jax.jit(subnet.apply)(own, np.zeros((1, 64, 64, 3), np.float32))
    assert logits.shape == (1, 1000)
    assert ofa_jax.params(net.space, net.arch) == sum(
        x.size for x in jax.tree.leaves(own["params"])
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "archs.json is not JSON: Expecting value"),
        ("[{}]", r"archs.json: \[0\].id is missing"),
        ("{}", r"archs.json: catalogue={}: expected tuple\[dict"),
        ('[{"id": "mine"}]', r"archs.json: \[0\].space is missing"),
    ],
)
def test_a_broken_catalogue_is_reported(tmp_path, text, message):
    (tmp_path / "archs.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        interop.published(tmp_path / "archs.json")
    with pytest.raises(ValueError, match=r"none\.json: no such file"):
        interop.published(tmp_path / "none.json")


def test_an_arch_outside_its_space_is_reported(tmp_path):
    row = {"id": "cpu_lat-10ms_top1-71.1_finetune-25", "space": "ofa_mbv3_d234_e346_k357_w1.0",
           "resolution": 144, "ks": 9, "e": 6, "d": 4}  # fmt: skip
    (tmp_path / "archs.json").write_text(json.dumps([row]))
    with pytest.raises(ValueError, match=r"arch\['ks'\]\[0\]=9"):
        interop.published(tmp_path / "archs.json")
