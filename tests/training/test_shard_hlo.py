"""What a step over eight devices moves and keeps, as XLA compiled it: nothing of a split table's size."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import pytest

from tests.tiny import table_rule, tiny_config
from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.mesh import MeshConfig, PlacementRule
from wukong_jax.config.run import RunConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature
from wukong_jax.evaluation.metrics import init_metrics
from wukong_jax.scaling.collectives import find_collectives
from wukong_jax.training.program import Program, build_program
from wukong_jax.training.state import blank_batch

ROWS, WIDTH, BATCH = 800_000, 16, 64
SCHEMA = DatasetSchema((CategoricalFeature("item", ROWS),), (MultiHotFeature("tags", ROWS, 3),))
PLACES = BATCH * 4
TABLE_BYTES = 2 * ROWS * WIDTH * 4  # of both
# What a batch reads and sends, over all devices; work space may be so many times of it.
BATCH_BYTES, TIMES = PLACES * (WIDTH + 1) * 4, 8
pytestmark = pytest.mark.usefixtures("compile_quickly")


def config_of(placement: str, optimizer: str, devices: int = 8, update: str = "row_sparse") -> RunConfig:
    config = tiny_config(pathlib.Path("none"), SCHEMA, batch_size=BATCH, eval_batch_size=BATCH, micro_batch=None)
    small = MLPConfig((4,))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, width=WIDTH, head=small, fmb_mlp=small),
        tables=table_rule(update, optimizer),
        mesh=MeshConfig(devices, 1, (PlacementRule(".*", placement),)),
    )


def abstract_batch(program: Program):
    batch = jax.eval_shape(functools.partial(blank_batch, program.config, BATCH))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        batch,
        program.batch_shardings,
    )


@functools.cache
def compiled(placement: str, optimizer: str, devices: int = 8, update: str = "row_sparse"):
    program = build_program(config_of(placement, optimizer, devices, update), 10)
    return program.train_step.lower(program.abstract_state(), abstract_batch(program)).compile()


@functools.cache
def compiled_evaluation(placement: str):
    program = build_program(config_of(placement, "sgd"), 10)
    metrics = jax.eval_shape(lambda: (init_metrics(),))
    return program.eval_step.lower(program.abstract_state(), metrics, abstract_batch(program)).compile()


SPLIT = ("rows", "dealt_rows", "columns")
OPTIMIZERS = ["rowwise_adagrad", pytest.param("adam", marks=pytest.mark.slow)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("placement", SPLIT)
def test_a_step_moves_what_its_batch_touches(placement: str, optimizer: str):
    found = find_collectives(compiled(placement, optimizer).as_text())
    assert any(collective.kind == "all-to-all" for collective in found)
    largest = max(collective.whole_bytes for collective in found)
    assert largest <= TIMES * BATCH_BYTES < TABLE_BYTES / 100


@pytest.mark.parametrize("placement", SPLIT)
def test_an_evaluation_moves_what_its_batch_reads(placement: str):
    found = find_collectives(compiled_evaluation(placement).as_text())
    assert max(collective.whole_bytes for collective in found) <= TIMES * BATCH_BYTES


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("placement", SPLIT)
def test_a_device_keeps_its_share_and_works_in_space_of_the_batchs_size(placement: str, optimizer: str):
    memory = compiled(placement, optimizer).memory_analysis()
    slots = 2 * TABLE_BYTES if optimizer == "adam" else TABLE_BYTES // WIDTH
    if (placement, optimizer) == ("columns", "rowwise_adagrad"):
        slots *= 8  # a value a row, which every device has
    expected = (TABLE_BYTES + slots) / 8
    assert expected <= memory.argument_size_in_bytes <= expected + 2**16
    assert memory.alias_size_in_bytes >= expected, "what is donated is updated in place"
    assert memory.temp_size_in_bytes <= 3 * TIMES * BATCH_BYTES / 8 < expected / 100


@pytest.mark.parametrize("placement", ["rows", "columns"])
def test_a_densely_updated_table_stays_with_its_gradient_and_moments_where_it_is_split(placement: str):
    found = compiled(placement, "adam", update="dense")
    largest = max(collective.whole_bytes for collective in find_collectives(found.as_text()))
    assert largest <= TIMES * BATCH_BYTES
    share, memory = TABLE_BYTES / 8, found.memory_analysis()
    assert 3 * share <= memory.argument_size_in_bytes <= 3 * share + 2**16
    assert memory.alias_size_in_bytes >= 3 * share, "what is donated is updated in place"
    # a device's part of the gradient, and what clipping makes of it
    assert memory.temp_size_in_bytes <= 2 * share + 3 * TIMES * BATCH_BYTES / 8


def test_table_bytes_of_a_device_fall_as_one_over_the_devices():
    sizes = {n: compiled("dealt_rows", "rowwise_adagrad", n).memory_analysis().argument_size_in_bytes for n in (2, 8)}
    assert sizes[2] / sizes[8] == pytest.approx(4, rel=0.02)


def test_initialising_a_split_table_needs_no_whole_one():
    program = build_program(config_of("dealt_rows", "sgd"), 10)
    memory = program.init.lower().compile().memory_analysis()
    assert memory.temp_size_in_bytes < TABLE_BYTES
    assert memory.output_size_in_bytes < TABLE_BYTES / 4


@pytest.mark.parametrize("placement", ["dealt_rows", "columns"])
def test_bfloat16_halves_what_the_exchange_of_rows_sends(placement: str):
    sent = {}
    for dtype in ("float32", "bfloat16"):
        config = config_of(placement, "sgd")
        config = dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, exchange_dtype=dtype))
        program = build_program(config, 10)
        hlo = program.train_step.lower(program.abstract_state(), abstract_batch(program)).as_text("hlo")
        rows = [c for c in find_collectives(hlo) if c.kind == "all-to-all" and c.arrays[0].dtype != "s32"]
        assert {c.arrays[0].dtype for c in rows} == {"f32" if dtype == "float32" else "bf16"}
        sent[dtype] = sum(c.sent_bytes for c in rows)
    assert sent["float32"] == 2 * sent["bfloat16"] > 0


@pytest.mark.parametrize("dense", ["fsdp", "tensor"])
def test_split_kernels_are_put_together_for_use_or_never(dense: str):
    config = config_of("rows", "sgd")
    settings = {"data": 4, "model": 2, "dense": dense, "dense_min_parameters": 1024}
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, fmb_mlp=MLPConfig((512,))),
        mesh=dataclasses.replace(config.mesh, **settings),
    )
    program = build_program(config, 10)
    hlo = program.train_step.lower(program.abstract_state(), abstract_batch(program)).compile().as_text()
    gathered = [array.shape for c in find_collectives(hlo) if c.kind == "all-gather" for array in c.arrays]
    split = [leaf for leaf in jax.tree.leaves(program.abstract_state().params) if len(leaf.shape) == 2]
    split = [leaf.shape for leaf in split if "model" in leaf.sharding.spec]
    assert {shape.index(512) for shape in split} == {0, 1}, "one 512 values in, one 512 out"
    assert all((shape in gathered) == (dense == "fsdp") for shape in split)


def test_mlps_of_8192_units_stay_split_by_tensor():
    """Of the shapes alone: a device keeps a fourth of them, and no collective has the size of such a kernel."""
    units, batch = 8192, 64
    config = config_of("rows", "sgd")
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, num_layers=1, fmb_mlp=MLPConfig((units, units))),
        mesh=dataclasses.replace(config.mesh, data=2, model=4, dense="tensor"),
    )
    program = build_program(config, 10)
    step = program.train_step.lower(program.abstract_state(), abstract_batch(program)).compile()
    found = find_collectives(step.as_text())
    # data parallel, gradients are added up: a fourth of the kernel is the most that a device has of it
    arrays = [array for collective in found for array in collective.arrays]
    assert max(math.prod(array.shape) for array in arrays) == units * units / 4
    # otherwise activations [batch, 8192] alone
    assert all(c.whole_bytes <= 4 * batch * units for c in found if c.kind != "all-reduce")
    # parameters and Adam's two moments; what is not of 8192 x 8192 is small
    whole = 3 * 4 * units * units
    assert whole / 4 <= step.memory_analysis().argument_size_in_bytes <= 1.1 * whole / 4


def test_metrics_cost_a_few_collectives_for_all_of_a_batch():
    counts = {}
    for progressive in (False, True):
        config = config_of("rows", "sgd")
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, progressive=progressive))
        program = build_program(config, 10)
        hlo = program.train_step.lower(program.abstract_state(), abstract_batch(program)).compile().as_text()
        counts[progressive] = len(find_collectives(hlo))
    assert counts[True] - counts[False] <= 12


def equations(jaxpr: Any) -> Iterator[Any]:
    """Those of a jaxpr, and of all that it calls."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in inner_jaxprs(equation):
            yield from equations(inner)


def inner_jaxprs(equation: Any) -> list[Any]:
    found = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda value: hasattr(value, "jaxpr"))
    return [getattr(value, "jaxpr", value) for value in found if hasattr(getattr(value, "jaxpr", value), "eqns")]


def has(equation: Any, primitive: str) -> bool:
    called = (inner for jaxpr in inner_jaxprs(equation) for inner in equations(jaxpr))
    return primitive in {found.primitive.name for found in (equation, *called)}


def waits_for_any(jaxpr: Any, equation: Any, others: list[Any]) -> bool:
    """Whether an input of the equation comes, by whatever way, from one of the others."""
    made_by = {variable: made for made in jaxpr.eqns for variable in made.outvars}
    seen, left = set(), [equation]
    while left:
        for variable in left.pop().invars:
            made = None if hasattr(variable, "val") else made_by.get(variable)
            if made is not None and id(made) not in seen:
                seen.add(id(made))
                left.append(made)
    return any(id(other) in seen for other in others)


@pytest.mark.parametrize("placement", SPLIT)
def test_semi_synchronous_a_device_copies_no_table_either(placement: str):
    config = config_of(placement, "rowwise_adagrad")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, semi_synchronous=True))
    program = build_program(config, 10)
    step = program.train_step.lower(program.abstract_state(), abstract_batch(program)).compile()
    assert step.memory_analysis().temp_size_in_bytes <= 4 * TIMES * BATCH_BYTES / 8 < TABLE_BYTES / 800


@pytest.mark.parametrize("ahead", [False, True])
def test_semi_synchronous_the_next_batchs_rows_and_the_pass_over_this_one_do_not_wait_for_each_other(ahead: bool):
    config = config_of("dealt_rows", "sgd")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, semi_synchronous=ahead))
    program = build_program(config, 10)
    body = program.train_step.trace(program.abstract_state(), abstract_batch(program)).jaxpr.jaxpr
    exchanges = [found for found in body.eqns if has(found, "all_to_all")]
    products = [found for found in body.eqns if has(found, "dot_general")]
    lookups = [found for found in exchanges if not waits_for_any(body, found, products)]
    assert lookups
    assert len(lookups) < len(exchanges)  # the gradients' way back waits for all of the pass
    assert any(waits_for_any(body, product, lookups) for product in products) == (not ahead)


@pytest.mark.parametrize("ahead", [False, True])
def test_looked_up_ahead_a_parts_rows_and_the_pass_over_the_part_before_do_not_wait_for_each_other(ahead: bool):
    config = config_of("dealt_rows", "sgd")
    config = dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, micro_batch=BATCH // 4),
        mesh=dataclasses.replace(config.mesh, lookup_ahead=ahead),
    )
    program = build_program(config, 10)
    step = program.train_step.trace(program.abstract_state(), abstract_batch(program)).jaxpr
    (scan,) = (found for found in equations(step.jaxpr) if found.primitive.name == "scan" and has(found, "all_to_all"))
    body = scan.params["jaxpr"].jaxpr
    exchanges = [found for found in body.eqns if has(found, "all_to_all")]
    products = [found for found in body.eqns if has(found, "dot_general")]
    assert exchanges
    assert products
    assert not any(waits_for_any(body, exchange, products) for exchange in exchanges)
    assert any(waits_for_any(body, product, exchanges) for product in products) == (not ahead)
