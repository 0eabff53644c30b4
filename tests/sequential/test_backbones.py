import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.sequential import backbone_oracle as oracle
from wukong_jax.config.codec import from_plain, to_plain
from wukong_jax.config.sequential import (
    BackboneConfig,
    BCEConfig,
    FullSoftmaxConfig,
    HSTUConfig,
    LlamaConfig,
    SampledSoftmaxConfig,
    SASRecConfig,
)
from wukong_jax.errors import ConfigError
from wukong_jax.scaling.flops import matmul_flops
from wukong_jax.sequential.attention import time_buckets
from wukong_jax.sequential.backbone import build_backbone, check_dtype, reads_times
from wukong_jax.sequential.cost import backbone_cost
from wukong_jax.sequential.sasrec import sasrec_block

pytestmark = pytest.mark.usefixtures("compile_quickly")

SMALL = {"num_layers": 3, "max_length": 7, "dropout": 0.0}
CASES = {
    "sasrec, no loop": (SASRecConfig(width=6, num_heads=1, **(SMALL | {"num_layers": 2})), False),
    "sasrec, two heads": (SASRecConfig(width=6, num_heads=2, ffn_width=9, **SMALL), False),
    "hstu": (HSTUConfig(width=6, num_heads=1, **SMALL), False),
    "hstu, two heads and times": (
        HSTUConfig(width=6, num_heads=2, attention_dim=2, linear_dim=4, time_buckets=40, **SMALL),
        True,
    ),
    "llama": (LlamaConfig(width=6, num_heads=1, **SMALL), False),
    "llama, two heads": (LlamaConfig(width=8, num_heads=2, ffn_width=5, rotary_base=50.0, **SMALL), False),
}
LENGTHS = (5, 1, 3)
every_case = pytest.mark.parametrize("case", CASES)


class Setup:
    """A backbone with random parameters (no initialiser runs, so that nothing is 0 or 1 by chance) and a batch."""

    def __init__(self, config, timed):
        rng, length = np.random.default_rng(5), 5
        self.config, self.module = config, build_backbone(config)
        self.x = rng.normal(size=(3, length, config.width)).astype(np.float32)
        self.valid = np.arange(length) < np.array(LENGTHS)[:, None]
        seconds = np.cumsum(rng.integers(0, 10 ** rng.integers(0, 7, (3, length + 1))), axis=1).astype(np.int32)
        self.times = (seconds[:, :-1], seconds[:, 1:]) if timed else (None, None)
        shapes = jax.eval_shape(self.module.init, jax.random.key(0), self.x, self.valid, *self.times)
        self.variables = jax.tree_util.tree_map_with_path(functools.partial(filled, rng), shapes)
        self.params = jax.tree.map(lambda x: np.asarray(x, np.float64), self.variables["params"])
        self.apply = jax.jit(self.module.apply)

    def __call__(self, x=None, valid=None, times=None):
        x, valid = self.x if x is None else x, self.valid if valid is None else valid
        return np.asarray(self.apply(self.variables, x, valid, *(times or self.times)))


@functools.cache
def set_up(case):
    """Compiled once for all tests of a case."""
    return Setup(*CASES[case])


def filled(rng, path, leaf):
    values = rng.normal(size=leaf.shape)
    name = path[-1].key
    scale = 1 / math.sqrt(leaf.shape[-2]) if name.endswith("kernel") else 0.5
    return jnp.asarray(values * scale + name.endswith("scale"), leaf.dtype)


@every_case
def test_the_forward_pass_is_that_of_the_formulas(case):
    setup, (config, timed) = set_up(case), CASES[case]
    forward = {SASRecConfig: oracle.sasrec, HSTUConfig: oracle.hstu, LlamaConfig: oracle.llama}[type(config)]
    out = setup()
    assert out.dtype == np.float32
    for row, length in enumerate(LENGTHS):
        times = [times[row, :length] for times in setup.times] if timed else []
        expected = forward(config, setup.params, setup.x[row, :length].astype(np.float64), *times)
        np.testing.assert_allclose(out[row, :length], expected, rtol=2e-4, atol=2e-5)
        np.testing.assert_array_equal(out[row, length:], 0)


@every_case
def test_a_later_item_changes_no_earlier_output_and_padding_changes_nothing(case):
    setup, (_, timed) = set_up(case), CASES[case]
    before = setup()
    for position in range(1, 5):
        x = setup.x.copy()
        x[:, position, 0] += 1
        after = setup(x)
        np.testing.assert_array_equal(after[:, :position], before[:, :position])
        assert np.all(np.any(after[0, position:] != before[0, position:], axis=-1)), (
            "an item does not reach what follows"
        )
    x = np.where(setup.valid[:, :, None], setup.x, np.nan)
    times = tuple(np.where(setup.valid, times, 2**31 - 1) for times in setup.times) if timed else None
    np.testing.assert_array_equal(setup(x, times=times), before)
    longer = [np.pad(part, [(0, 0), (0, 2)], constant_values=3) for part in setup.times] if timed else None
    x, valid = np.pad(setup.x, [(0, 0), (0, 2), (0, 0)], constant_values=9), np.pad(setup.valid, [(0, 0), (0, 2)])
    np.testing.assert_allclose(setup(x, valid, longer)[:, :5], before, rtol=1e-5, atol=1e-6)


@every_case
def test_a_sequence_in_a_shared_row_is_read_as_if_it_were_alone(case):
    setup, alone = set_up(case), set_up(case)()
    cuts = [(row, place) for row, length in enumerate(LENGTHS) for place in range(length)][:7]
    shared = lambda x: None if x is None else np.stack([x[cut] for cut in cuts])[None]  # noqa: E731
    segments = np.array([[row for row, _ in cuts]])
    out = setup.apply(setup.variables, shared(setup.x), np.ones((1, 7), bool), *map(shared, setup.times), segments)
    np.testing.assert_allclose(out[0], [alone[cut] for cut in cuts], rtol=1e-4, atol=1e-5)


@every_case
def test_parameters_and_flops_are_those_of_the_closed_form(case):
    setup, (config, timed) = set_up(case), CASES[case]
    cost = backbone_cost(config, times=timed, length=5)
    sizes = {path[-1].key: leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(setup.params)}
    assert cost.position_parameters == sizes.pop("positions", 0)
    assert cost.parameters == sum(sizes.values())
    traced = jax.make_jaxpr(setup.module.apply)(setup.variables, setup.x, setup.valid, *setup.times)
    assert cost.forward_flops * 15 == sum(flops for _, flops in matmul_flops(traced.jaxpr))


@pytest.mark.parametrize("config", [SASRecConfig(), HSTUConfig(), LlamaConfig()])
def test_gradients_in_training_are_finite_and_reach_every_parameter(config):
    setup = Setup(dataclasses.replace(config, width=6, num_layers=3, max_length=7), reads_times(config))
    # a row of zeros, as after no training at all, and a row of nothing but padding
    x, valid = jnp.asarray(setup.x).at[1].set(0), jnp.asarray(setup.valid).at[2].set(False)
    times = jax.tree.map(jnp.asarray, setup.times)

    def total(params, key, remat):
        module = build_backbone(dataclasses.replace(setup.config, remat=remat))
        out = module.apply({"params": params}, x, valid, *times, train=True, rngs={"dropout": key})
        return (out**2).sum()

    gradient = jax.jit(jax.value_and_grad(total), static_argnums=2)
    params, (key, other) = setup.variables["params"], jax.random.split(jax.random.key(1))
    loss, plain = gradient(params, key, False)
    for path, leaf in jax.tree_util.tree_leaves_with_path(plain):
        assert np.isfinite(leaf).all(), f"no finite gradient of {jax.tree_util.keystr(path)}"
        # a bias of all keys shifts every score alike, which the softmax takes out
        assert np.any(leaf) or path[-1].key == "key_bias", f"no gradient reaches {jax.tree_util.keystr(path)}"
    assert gradient(params, other, False)[0] != loss, "nothing is dropped"
    if reads_times(config):  # remat is one line for all backbones; compiling it once is enough
        again = gradient(params, key, True)[1]
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), again, plain)


def test_the_scan_is_one_block_after_another():
    setup = set_up("sasrec, two heads")
    params, valid = setup.variables["params"], setup.valid[:, :, None]
    x = jnp.where(valid, setup.x * math.sqrt(6) + params["positions"][:5], 0)
    block = jax.jit(functools.partial(sasrec_block, key=None, segments=None, config=setup.config))
    for layer in range(setup.config.num_layers):
        x = block({name: value[layer] for name, value in params["blocks"].items()}, x)
    np.testing.assert_allclose(setup(), np.where(valid, x, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("config", [SASRecConfig, HSTUConfig, LlamaConfig])
def test_the_program_to_compile_does_not_grow_with_depth(config):
    few, many = (training_program(config(width=4, num_layers=layers, max_length=5)) for layers in (4, 64))
    assert len(few.splitlines()) == len(many.splitlines())


def training_program(config):
    """The gradient of a backbone as it is handed to the compiler."""
    module, x, valid = build_backbone(config), jnp.ones((1, 5, 4)), jnp.ones((1, 5), bool)
    dropout = {"dropout": jax.random.key(1)}

    def total(variables):
        return module.apply(variables, x, valid, train=True, rngs=dropout).sum()

    variables = jax.eval_shape(module.init, jax.random.key(0), x, valid)
    return jax.jit(jax.grad(total)).lower(variables).as_text()


def test_every_block_starts_as_if_it_were_alone():
    config = LlamaConfig(width=64, num_layers=40, ffn_width=16, max_length=4)
    x, valid = jnp.ones((1, 4, 64)), jnp.ones((1, 4), bool)
    params = jax.jit(build_backbone(config).init)(jax.random.key(3), x, valid)["params"]["blocks"]
    for name, fans in {"query_kernel": (64, 64), "gate_kernel": (64, 16), "down_kernel": (16, 64)}.items():
        kernels = np.asarray(params[name])
        assert kernels.shape == (40, *fans)
        np.testing.assert_allclose(kernels.std(axis=(1, 2)), math.sqrt(2 / sum(fans)), rtol=0.12)
        assert len(np.unique(kernels[:, 0, 0])) == 40
    np.testing.assert_array_equal(params["ffn_norm_scale"], np.ones((40, 64)))


def test_time_buckets_are_of_the_gap_between_request_and_item_whatever_its_sign():
    times = jnp.asarray([[0, 1, 100, 1_000_000_000]], jnp.int32)
    buckets = np.asarray(time_buckets(times, times + 1, 60))[0]
    expected = [[int(math.log(max(abs(int(r) + 1 - int(t)), 1)) / 0.301) for t in times[0]] for r in times[0]]
    np.testing.assert_array_equal(buckets, np.minimum(expected, 60))
    assert buckets.max() == 60
    assert buckets[0, 0] == buckets[0, 1] == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SASRecConfig(width=50, num_heads=3), r"num_heads: received 3, expected a divisor of model.width=50"),
        (lambda: HSTUConfig(width=50, num_heads=3, linear_dim=7), "or give model.attention_dim"),
        (lambda: LlamaConfig(width=50, num_heads=2), "heads of width 25; expected an even width"),
        (lambda: SASRecConfig(num_layers=0), "model.num_layers: received 0"),
        (lambda: HSTUConfig(dropout=1.0), "model.dropout: received 1.0"),
        (lambda: LlamaConfig(ffn_width=-1), "model.ffn_width: received -1"),
        (lambda: HSTUConfig(time_buckets=0), "model.time_buckets: received 0"),
        (lambda: SampledSoftmaxConfig(num_negatives=0), "model.loss.num_negatives: received 0"),
        (lambda: FullSoftmaxConfig(temperature=0.0), "model.loss.temperature: received 0.0"),
        (lambda: BCEConfig(num_negatives=-3), "model.loss.num_negatives: received -3"),
        (lambda: backbone_cost(SASRecConfig(max_length=5), length=6), "length: received 6"),
        (lambda: check_dtype(HSTUConfig(dtype="bfloat16"), "cpu"), "model.dtype: received 'bfloat16' on CPU"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("config", "length", "width", "timed", "message"),
    [
        (SASRecConfig(width=6, **SMALL), 8, 6, False, "max_length: received sequences of 8 items, expected at most 7"),
        (HSTUConfig(width=6, **SMALL), 5, 4, False, "width: received item vectors of width 4, expected 6"),
        (SASRecConfig(width=6, **SMALL), 5, 6, True, "the model does not read them"),
        (LlamaConfig(width=6, **SMALL), 5, 6, True, "the model does not read them"),
    ],
)
def test_batches_that_do_not_fit_are_refused(config, length, width, timed, message):
    times = jnp.zeros((2, length), jnp.int32) if timed else None
    x, valid = jnp.ones((2, length, width)), jnp.ones((2, length), bool)
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(build_backbone(config).init, jax.random.key(0), x, valid, times)


@pytest.mark.parametrize(
    "config", [SASRecConfig(loss=BCEConfig()), HSTUConfig(loss=FullSoftmaxConfig()), LlamaConfig()]
)
def test_configs_survive_json(config):
    assert from_plain(BackboneConfig, to_plain(config)) == config
