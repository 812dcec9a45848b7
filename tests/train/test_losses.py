import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ofa_jax.train import losses


def logits(seed, scale=2.0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((6, 5), np.float32) * scale)


def softmax(x):
    e = np.exp(np.asarray(x, np.float64))
    return e / e.sum(-1, keepdims=True)


def test_smoothed_cross_entropy_is_the_references_formula():
    student, labels = logits(0), np.array([0, 1, 2, 3, 4, 0])
    targets = np.eye(5)[labels] * 0.9 + 0.1 / 5
    expected = -(targets * np.log(softmax(student))).sum(-1).mean()
    got = losses.smoothed_cross_entropy(student, jnp.asarray(labels), 0.1)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_soft_cross_entropy_and_its_gradient():
    student, teacher = logits(0), logits(1)
    expected = -(softmax(teacher) * np.log(softmax(student))).sum(-1).mean()
    np.testing.assert_allclose(losses.soft_cross_entropy(student, teacher), expected, rtol=1e-6)
    gradient = jax.grad(losses.soft_cross_entropy)(student, teacher)
    np.testing.assert_allclose(gradient, (softmax(student) - softmax(teacher)) / 6, atol=1e-6)


def test_logit_mse():
    student, teacher = logits(0), logits(1)
    expected = np.square(np.asarray(student) - np.asarray(teacher)).mean()
    np.testing.assert_allclose(losses.logit_mse(student, teacher), expected, rtol=1e-6)


def alphanet(student, teacher, alpha, clip):
    """The published formulas in float64, and their gradient in the student's logits."""
    q, p = softmax(student), softmax(teacher)
    ratio = p / q
    if alpha == 1:
        value, rho = (q * ratio * np.log(ratio)).sum(-1), ratio
    else:
        weight = np.minimum(ratio**alpha, clip)
        base = 1 / alpha / (alpha - 1)
        value, rho = (q * (weight * base - base)).sum(-1), weight / alpha + base
    weighted = q * rho  # gradient of -sum(weighted * log_softmax)
    return value, weighted.sum(-1, keepdims=True) * q - weighted


def test_alpha_divergence_is_alphanets_with_its_gradient():
    student, teacher = logits(0, 3.0), logits(1, 3.0)
    low, low_gradient = alphanet(student, teacher, -1.0, 5.0)
    high, high_gradient = alphanet(student, teacher, 1.0, 5.0)
    assert 0 < (low > high).sum() < 6  # both sides are chosen
    np.testing.assert_allclose(
        losses.alpha_divergence(student, teacher), np.where(low > high, low, high).mean(), rtol=1e-5
    )
    expected = np.where((low > high)[:, None], low_gradient, high_gradient) / 6
    gradient = jax.grad(losses.alpha_divergence)(student, teacher)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["soft", "mse", "alpha"])
def test_a_net_that_agrees_with_its_teacher_learns_nothing(name):
    gradient = jax.grad(losses.DISTILLATIONS[name])(logits(0), logits(0))
    np.testing.assert_allclose(gradient, 0, atol=1e-7)


@pytest.mark.parametrize("name", ["soft", "alpha"])
def test_confident_nets_give_no_nan(name):
    student = jnp.asarray([[300.0, 0, 0], [0, -300.0, 0], [0.0, 0, 0]])
    teacher = jnp.asarray([[0, 300.0, 0], [0, 300.0, 0], [-300.0, 300, 0]])
    value, gradient = jax.value_and_grad(losses.DISTILLATIONS[name])(student, teacher)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["soft", "mse", "alpha"])
def test_the_teacher_gets_no_gradient(name):
    gradient = jax.grad(losses.DISTILLATIONS[name], argnums=1)(logits(0), logits(1))
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize(("number", "name"), [(0, "soft"), (1, "mse"), (2, "alpha")])
def test_a_distillation_by_its_number_and_temperature(number, name):
    """A higher temperature keeps the size of the gradient, and softens what is learnt."""
    function = losses.DISTILLATIONS[name]
    arguments = jnp.int32(number), logits(0), logits(1)
    np.testing.assert_allclose(losses.distillation(*arguments), function(*arguments[1:]), rtol=1e-6)
    expected = 9 * function(logits(0) / 3, logits(1) / 3)
    np.testing.assert_allclose(losses.distillation(*arguments, 3.0), expected, rtol=1e-6)
