import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from wukong_jax.config.sequential import BCEConfig, FullSoftmaxConfig, SampledSoftmaxConfig
from wukong_jax.errors import ConfigError
from wukong_jax.sequential import losses
from wukong_jax.sequential.losses import draw_negatives, rows_loss, score_vectors, table_loss

pytestmark = pytest.mark.usefixtures("compile_quickly")

BATCH, LENGTH, WIDTH = 2, 5, 3
SAMPLED = {
    "sampled": SampledSoftmaxConfig(num_negatives=2, temperature=0.2),
    "sampled, plain scores": SampledSoftmaxConfig(num_negatives=2, temperature=0.5, normalize=False),
    "bce": BCEConfig(num_negatives=2),
}
FULL = {
    "full": FullSoftmaxConfig(temperature=0.3),
    "full, plain scores": FullSoftmaxConfig(temperature=1.5, normalize=False),
}
# items: few enough for one product, too many for it; bytes of a chunk: 1, 2 or 3, and all positions
TABLES = [(name, 7, size) for name in ("sampled", "full") for size in (1, 80, 2**20)]
TABLES += [(name, 7, 80) for name in ("sampled, plain scores", "bce", "full, plain scores")]
TABLES += [("sampled", 40, 2**20), *((name, 40, 80) for name in SAMPLED)]


class Case:
    """A batch with masked negatives, padding whose target is no item, and an item of zeros."""

    def __init__(self, name, num_items=7, shared=False):
        rng = np.random.default_rng(11)
        self.config = (SAMPLED | FULL)[name]
        self.users = rng.normal(size=(BATCH, LENGTH, WIDTH))
        self.items = rng.normal(size=(num_items, WIDTH))
        self.items[1] = 0
        self.valid = np.arange(LENGTH) < np.array([[5], [3]])
        self.targets = np.where(self.valid, rng.integers(0, num_items, (BATCH, LENGTH)), -1)
        self.targets[0, 0] = 1
        self.negatives = None
        if name in SAMPLED:
            self.negatives = rng.integers(0, num_items, (2,) if shared else (BATCH, LENGTH, 2))
            if not shared:
                self.negatives[0, 0] = self.targets[0, 0]  # both masked
                self.negatives[1, 0, 1] = self.targets[1, 0]
            else:
                self.targets[1, 1] = self.negatives[0]

    def expected(self, users=None, items=None):
        """Sum over valid positions in float64, position by position."""
        users, items = self.users if users is None else users, self.items if items is None else items
        config, total = self.config, 0.0
        for b, i in np.argwhere(self.valid):
            user, target = users[b, i], self.targets[b, i]
            others = range(len(items))
            if self.negatives is not None:
                others = self.negatives if self.negatives.ndim == 1 else self.negatives[b, i]
            scores = [score(config, user, items[j]) for j in others if j != target]
            positive = score(config, user, items[target])
            if isinstance(config, BCEConfig):
                total += np.logaddexp(0, -positive) + sum(np.logaddexp(0, s) for s in scores)
            else:
                total += np.logaddexp.reduce([positive, *scores]) - positive
        return total

    def slope(self, to_users, to_items):
        """Change of the sum along a direction, by a central difference."""
        step = 1e-5
        up = self.expected(self.users + step * to_users, self.items + step * to_items)
        return (up - self.expected(self.users - step * to_users, self.items - step * to_items)) / (2 * step)

    def arrays(self):
        """Users, targets, valid, items, negatives."""
        negatives = None if self.negatives is None else jnp.asarray(self.negatives)
        users, items = (jnp.asarray(x, jnp.float32) for x in (self.users, self.items))
        return users, jnp.asarray(self.targets), jnp.asarray(self.valid), items, negatives


def score(config, user, item):
    if isinstance(config, BCEConfig):
        return user @ item
    if config.normalize:
        user, item = user / max(np.linalg.norm(user), 1e-6), item / max(np.linalg.norm(item), 1e-6)
    return user @ item / config.temperature


def check(case, compute, users, items):
    """Loss, and its gradients along random directions; the item of zeros stays, where the gradient is huge."""
    total, (to_users, to_items) = jax.jit(jax.value_and_grad(compute, (0, 1)))(users, items)
    np.testing.assert_allclose(total, case.expected(), rtol=1e-5)
    assert np.isfinite(to_users).all()
    assert np.isfinite(to_items).all()
    np.testing.assert_array_equal(np.asarray(to_users)[~case.valid], 0)
    rng = np.random.default_rng(3)
    for of_users, of_items in ((1, 0), (0, 1)):
        direction = of_users * rng.normal(size=case.users.shape), of_items * rng.normal(size=case.items.shape)
        direction[1][1] = 0
        along = (to_users * direction[0]).sum() + (to_items * direction[1]).sum()
        np.testing.assert_allclose(along, case.slope(*direction), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "num_items", "chunk_bytes"), TABLES)
def test_the_loss_over_a_table_in_chunks_of_any_size(name, num_items, chunk_bytes, monkeypatch):
    monkeypatch.setitem(losses.CHUNK_BYTES, "cpu", chunk_bytes)
    case = Case(name, num_items)
    users, targets, valid, items, negatives = case.arrays()

    def compute(users, items):
        return table_loss(case.config, users, targets, valid, items, negatives)

    check(case, compute, users, items)
    np.testing.assert_allclose(jax.jit(compute)(users, items), case.expected(), rtol=1e-5)


@pytest.mark.parametrize("name", SAMPLED)
def test_the_loss_over_gathered_rows(name):
    case = Case(name, shared=True)
    users, targets, valid, items, negatives = case.arrays()

    def compute(users, items):
        # rows of padding are whatever the gather gives
        return rows_loss(case.config, users, targets, valid, items[targets], negatives, items[negatives])

    check(case, compute, users, items)


def test_a_batch_of_padding_has_a_loss_of_0_without_gradient():
    case = Case("sampled")
    users, targets, valid, items, negatives = case.arrays()

    def total(users, items):
        return table_loss(case.config, users, targets, jnp.zeros_like(valid), items, negatives)

    value, gradients = jax.jit(jax.value_and_grad(total, (0, 1)))(users, items)
    assert value == 0
    assert not any(np.any(gradient) for gradient in gradients)


@pytest.mark.parametrize("shape", [(2,), (4, 3)])
def test_negatives_are_uniform_over_the_items(shape):
    config = SampledSoftmaxConfig(num_negatives=25_000 if shape == (2,) else 5_000)
    draw = functools.partial(draw_negatives, config=config, shape=shape, num_items=37)
    drawn = np.asarray(draw(jax.random.key(0)))
    assert drawn.shape == (*shape, config.num_negatives)
    assert drawn.dtype == np.int32
    counts = np.bincount(drawn.ravel(), minlength=37)
    assert len(counts) == 37
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert np.any(drawn != np.asarray(draw(jax.random.key(1))))


@pytest.mark.parametrize("name", [*SAMPLED, *FULL])
def test_dot_products_of_score_vectors_are_the_scores(name):
    case = Case(name)
    users, items = score_vectors(case.config, *(jnp.asarray(x, jnp.float32) for x in (case.users[0], case.items)))
    expected = [[score(case.config, user, item) for item in case.items] for user in case.users[0]]
    np.testing.assert_allclose(users @ items.T, expected, rtol=1e-5, atol=1e-6)


def test_negatives_that_do_not_belong_to_the_loss_are_refused():
    case = Case("full")
    users, targets, valid, items, _ = case.arrays()
    with pytest.raises(ConfigError, match="expected none: the full softmax has no negatives"):
        table_loss(case.config, users, targets, valid, items, jnp.zeros((BATCH, LENGTH, 2), jnp.int32))
    with pytest.raises(ConfigError, match="none given, expected ids from draw_negatives"):
        table_loss(SAMPLED["bce"], users, targets, valid, items)
    with pytest.raises(ConfigError, match="draw no negatives"):
        draw_negatives(jax.random.key(0), case.config, (4,), 5)
