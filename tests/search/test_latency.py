"""Latency tables of our own, and what is wrong with others'."""

import json

import jax
import numpy as np
import pytest
from search.test_cost import count_macs

import ofa_jax
from ofa_jax import conv
from ofa_jax.alone import Alone
from ofa_jax.search import load_latency_table
from ofa_jax.search.latency import parts
from ofa_jax.space import stack


def write(path, space, sizes, **changes):
    """A table in which the n-th key takes n ms."""
    tables = {}
    for size in sizes:
        keys = dict.fromkeys(p.key for part in parts(space, size) for p in part.pieces.flat)
        tables[size] = {key: {"median": float(n)} for n, key in enumerate(keys)}
    path.write_text(json.dumps({"unit": "ms", "resolutions": tables} | changes))
    return tables


def chosen_keys(space, arch, size):
    """The keys of one arch in order."""
    active = np.asarray(space.active(arch.depth))
    for part in parts(space, size):
        if part.block is None or active[part.block]:
            indices = tuple(int(getattr(arch, field)[i]) for field, i in part.genes)
            yield part.pieces[indices]


def test_latency_is_the_sum_of_its_parts(space, tmp_path):
    tables = write(tmp_path / "table.json", space, (64, 96))
    table = load_latency_table(tmp_path / "table.json", space)
    archs = [
        space.largest(),
        space.smallest(),
        *map(space.sample, jax.random.split(jax.random.key(0), 4)),
    ]
    for size in (64, 96):
        expected = []
        for arch in archs:
            keys = [piece.key for piece in chosen_keys(space, arch, size)]
            expected.append(sum(tables[size][key]["median"] for key in keys))
        assert [table(arch, size) for arch in archs] == expected
        traced = jax.jit(jax.vmap(lambda arch, size=size: table(arch, size)))(stack(archs))
        np.testing.assert_allclose(traced, expected, rtol=1e-6)


def test_the_pieces_make_up_the_net(space, monkeypatch):
    """Their multiply-accumulates are the net's, and each takes what the one before gives."""
    monkeypatch.setattr(conv, "depthwise_conv", conv.grouped_conv)
    monkeypatch.setattr(conv, "dense_conv", conv.direct_conv)
    arch = space.sample(jax.random.key(3))
    total, shape = 0, (1, 64, 64, 3)
    for piece in chosen_keys(space, arch, 64):
        net = Alone(space, piece.layers)
        assert np.prod(shape) == piece.size**2 * piece.channels
        image = jax.ShapeDtypeStruct((1, piece.size, piece.size, piece.channels), "float32")
        variables = jax.eval_shape(net.init, jax.random.key(0), image)
        total += count_macs(jax.make_jaxpr(net.apply)(variables, image).jaxpr)
        shape = jax.eval_shape(net.apply, variables, image).shape
    assert shape == (1, 10)
    assert total == ofa_jax.macs(space, arch, 64)


@pytest.mark.slow
def test_a_table_of_this_machine(tiny, tmp_path, capsys):
    small = {"kernels": (3,), "expands": (3, 6), "depths": (1, 2)}
    tiny = ofa_jax.get_space(tiny.name, num_classes=10, **small)
    path = tmp_path / "latency.json"
    table = ofa_jax.build_latency_table(tiny, (8,), path, repeats=5, validate=2)
    data = json.loads(path.read_text())
    assert (data["unit"], data["batch_size"], data["dtype"]) == ("ms", 1, "float32")
    assert data["machine"]["jax"] == jax.__version__
    assert data["machine"]["threads"] >= 1
    entries = data["resolutions"]["8"].values()
    assert all(entry["median"] >= 0 and entry["repeats"] == 5 for entry in entries)
    rows = data["validation"]["subnets"]
    assert len(rows) == 2
    errors = [abs(row["predicted"] / row["measured"] - 1) for row in rows]
    assert data["validation"]["median_error"] == pytest.approx(np.median(errors))
    alone = sum(data["resolutions"]["8"][piece.key]["median"]
                for piece in chosen_keys(tiny, tiny.largest(), 8))  # fmt: skip
    assert table(tiny.largest(), 8) == pytest.approx(data["factor"] * alone)
    assert "median error" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": "us"}, "table.json: unit='us': expected 'ms'"),
        ({"resolutions": {"16": {"Conv": {}}}}, "resolutions.16.Conv.median is missing"),
        ({"resolutions": {"16": {"Conv": {"median": -1}}}}, "Conv.median=-1.0: expected 0 to"),
        ({"factor": 0}, r"factor=0.0: expected 0.001 to 1000"),
        ({"resolutions": {"16": {}}}, "has no key 'Conv-input:16x16x3-output:16x16x16' at res"),
    ],
)
def test_what_is_wrong_with_a_table(tiny, tmp_path, changes, message):
    write(tmp_path / "table.json", tiny, (16,), **changes)
    with pytest.raises(ValueError, match=message):
        load_latency_table(tmp_path / "table.json", tiny)


def test_what_is_no_table(tiny, tmp_path):
    with pytest.raises(ValueError, match="no latency table at"):
        load_latency_table(tmp_path / "none.json", tiny)
    with pytest.raises(ValueError, match="has no table: expected <resolution>_lookup_table.yaml"):
        load_latency_table(tmp_path, tiny)
    (tmp_path / "a.json").write_text('{"resolutions": {}}')
    with pytest.raises(ValueError, match="a.json has no 'unit'"):
        load_latency_table(tmp_path / "a.json", tiny)
    (tmp_path / "16_lookup_table.yaml").write_text("- !!python/object/apply:os.getcwd []")
    with pytest.raises(ValueError, match="is not YAML"):
        load_latency_table(tmp_path, tiny)
    with pytest.raises(ValueError, match="dtype='float16': expected float32 or bfloat16"):
        ofa_jax.build_latency_table(tiny, (8,), tmp_path / "b.json", dtype="float16")
