import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss

from wukong_jax.training.losses import binary_cross_entropy


def arrays(rng, rows=200, tasks=1):
    logits = rng.normal(scale=3, size=(rows, tasks)).astype(np.float32)
    labels = rng.integers(0, 2, (rows, tasks)).astype(np.float32)
    weights = rng.exponential(size=rows).astype(np.float32)
    return logits, labels, weights


def loss(logits, labels, weights, task_weights=()) -> float:
    value = binary_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(weights), task_weights)
    assert value.dtype == jnp.float32
    return float(value)


def test_equals_scikit_learn_with_weights(rng):
    logits, labels, weights = arrays(rng)
    wanted = log_loss(labels[:, 0], expit(logits[:, 0].astype(float)), sample_weight=weights)
    assert loss(logits, labels, weights) == pytest.approx(wanted, rel=1e-5)


def test_tasks_are_summed_by_their_weights(rng):
    logits, labels, weights = arrays(rng, tasks=2)
    one, two = (loss(logits[:, [task]], labels[:, [task]], weights) for task in (0, 1))
    assert loss(logits, labels, weights) == pytest.approx(one + two, rel=1e-5)
    assert loss(logits, labels, weights, (0.5, 3.0)) == pytest.approx(0.5 * one + 3 * two, rel=1e-5)
    assert loss(logits, labels, weights, (0.0, 1.0)) == pytest.approx(two, rel=1e-5)


def test_a_weight_of_0_leaves_the_example_out_of_value_and_gradient(rng):
    logits, labels, weights = arrays(rng)
    weights[50:] = 0
    assert loss(logits, labels, weights) == pytest.approx(loss(logits[:50], labels[:50], weights[:50]), rel=1e-6)
    gradient = jax.grad(lambda z: binary_cross_entropy(z, jnp.asarray(labels), jnp.asarray(weights)))(
        jnp.asarray(logits)
    )
    assert not gradient[50:].any()
    assert gradient[:50].all()
    assert loss(logits, labels, np.zeros(200, np.float32)) == 0


def test_extreme_and_half_precision_logits_stay_finite():
    """The loss is taken from logits, in float32."""
    logits = jnp.asarray([[200.0], [-200.0], [1e30]])
    value, gradient = jax.value_and_grad(
        lambda z: binary_cross_entropy(z, jnp.asarray([[0.0], [1.0], [1.0]]), jnp.ones(3))
    )(logits)
    assert float(value) == pytest.approx(400 / 3)
    np.testing.assert_allclose(gradient, [[1 / 3], [-1 / 3], [0]], atol=1e-6)
    half = jnp.asarray([[0.1], [0.2]], jnp.bfloat16)
    assert loss(half, [[1.0], [0.0]], np.ones(2, np.float32)) == pytest.approx(
        np.mean([np.log1p(np.exp(-float(half[0, 0]))), np.log1p(np.exp(float(half[1, 0])))]), rel=1e-6
    )
