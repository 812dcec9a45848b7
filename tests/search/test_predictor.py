import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import ofa_jax
from ofa_jax.search import load_predictor
from ofa_jax.search.predictor import agreement, features, save_predictor, train_predictor

KEY = jax.random.key(0)


def accuracies(space, archs, sizes):
    """A made-up score: deeper, wider and larger is better, by a different amount for each block."""
    weights = np.random.default_rng(0).uniform(0, 1, len(space.blocks))

    def one(arch, size):
        active = jnp.asarray(space.active(arch.depth))
        return (
            0.5 + ((1 + arch.kernel + 2 * arch.expand) * active * weights).sum() / 400 + size / 400
        )

    return np.asarray(jax.vmap(one)(archs, sizes))


def dataset(space, count=400):
    archs = jax.vmap(space.sample)(jax.random.split(KEY, count))
    sizes = np.where(np.arange(count) % 2, 16, 24)
    return archs, sizes, accuracies(space, archs, sizes)


def test_it_learns_what_is_there_and_comes_back_from_its_file(tiny, tmp_path):
    data = dataset(tiny)
    predictor = train_predictor(tiny, *data, KEY)
    assert predictor.report["held_out_archs"] == 80
    assert predictor.report["kendall_tau"] > 0.85
    assert predictor.report["spearman"] > 0.95
    assert predictor.report["rmse"] < 0.25 * data[2].std()
    again = train_predictor(tiny, *data, KEY)
    assert again.report == predictor.report
    save_predictor(tmp_path / "p.npz", predictor)
    loaded = load_predictor(tmp_path / "p.npz", tiny)
    assert loaded.report == predictor.report
    arch = tiny.sample(jax.random.key(7))
    assert float(loaded(arch, 24)) == float(predictor(arch, 24))
    assert float(loaded(arch, 24)) == pytest.approx(
        accuracies(tiny, jax.tree.map(lambda a: a[None], arch), np.asarray([24]))[0], abs=0.02
    )
    with pytest.raises(ValueError, match="does not know resolution 20: it has 16, 24"):
        loaded(arch, 20)
    other = ofa_jax.get_space(tiny.name, depths=(1, 2), num_classes=10)
    with pytest.raises(ValueError, match=r"another space: its depths is \[1, 2, 3\], not \[1, 2\]"):
        load_predictor(tmp_path / "p.npz", other)


def test_features_of_a_small_net_by_hand(tiny):
    arch = tiny.arch_from_dict({"ks": 5, "e": 6, "d": 1})  # of each stage's three blocks the first
    vector, known = features(tiny, ((16, 17), (24, 25)), arch, 24)
    vector = np.asarray(vector)
    assert known
    assert len(vector) == 27 + 27 + 2
    np.testing.assert_array_equal(np.flatnonzero(vector), [1, 10, 19, 29, 38, 47, 55])
    assert not features(tiny, ((16, 17),), arch, 24)[1]


def test_agreement_by_hand():
    found = agreement(np.asarray([0.1, 0.2, 0.3, 0.4]), np.asarray([0.1, 0.2, 0.4, 0.3]))
    assert found["kendall_tau"] == pytest.approx(4 / 6)  # five pairs agree, one does not
    assert found["spearman"] == pytest.approx(0.8)
    assert found["rmse"] == pytest.approx(np.sqrt(0.02 / 4))
    assert agreement(np.ones(4), np.arange(4.0))["kendall_tau"] == 0.0


def test_agreement_is_scipys_with_ties_too():
    rng = np.random.default_rng(0)
    for levels in (3, 10, 1000):
        a, b = rng.integers(0, levels, (2, 60)) / levels
        found = agreement(a, b)
        assert found["kendall_tau"] == pytest.approx(stats.kendalltau(a, b)[0], abs=1e-12)
        assert found["spearman"] == pytest.approx(stats.spearmanr(a, b)[0], abs=1e-12)


def test_what_is_no_predictor(tiny, tmp_path):
    archs, sizes, values = dataset(tiny, 30)
    with pytest.raises(ValueError, match="10 measured subnets are too few"):
        train_predictor(tiny, jax.tree.map(lambda a: a[:10], archs), sizes[:10], values[:10], KEY)
    with pytest.raises(ValueError, match=r"an accuracy is not in \[0, 1\]"):
        train_predictor(tiny, archs, sizes, values * 100, KEY)
    with pytest.raises(ValueError, match="no predictor at"):
        load_predictor(tmp_path / "none.npz", tiny)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match=r"text.npz is no .npz file of arrays: "):
        load_predictor(tmp_path / "text.npz", tiny)
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    with pytest.raises(ValueError, match="is no predictor: it has 'images'"):
        load_predictor(tmp_path / "other.npz", tiny)
