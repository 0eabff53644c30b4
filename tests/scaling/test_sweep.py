"""The list of a sweep: what the builders make, what they refuse, and how it is divided and timed. No run is trained."""

import dataclasses
import itertools
import json
import math
import os
import pathlib
import re

import numpy as np
import pytest

from tests.tiny import memory_console, plain_config, printed, tiny_config
from wukong_jax.config.layers import MLPConfig
from wukong_jax.data.order import permuted_rows
from wukong_jax.data.pipeline import training_batches
from wukong_jax.data.store import open_store
from wukong_jax.errors import ConfigError
from wukong_jax.scaling.flops import Cost
from wukong_jax.scaling.sweep import (
    Point,
    Sweep,
    examples_of,
    grid,
    load_sweep,
    one_at_a_time,
    over_examples,
    over_seeds,
    points_of,
    with_fields,
)
from wukong_jax.scaling.sweep_display import LiveTable, PlainLines, shown_first, table
from wukong_jax.scaling.sweep_forecast import makespan
from wukong_jax.scaling.sweep_plan import PlannedRun, parse_shard, plan, shard, step_key
from wukong_jax.scaling.sweep_processes import cores_of, machine_memory
from wukong_jax.scaling.sweep_runner import Status
from wukong_jax.scaling.sweep_timing import Timing, interpolate, measure, measuring_order
from wukong_jax.training.loop import total_steps

WUKONG = tiny_config(pathlib.Path("store"))
LINEAR = plain_config(pathlib.Path("store"))
BASE = points_of("knob", {"Wukong": WUKONG})


def varied(points):
    return [dict(point.varied) for point in points]


def test_a_grid_is_the_full_product_with_the_fields_set():
    points = grid(BASE, {"model.num_layers": (1, 2), "tables.rules.0.learning_rate": (0.1, 0.2, 1)})
    assert varied(points) == [
        {"num_layers": layers, "learning_rate": rate} for layers, rate in itertools.product((1, 2), (0.1, 0.2, 1))
    ]
    for point in points:
        assert point.config.model.num_layers == point.varied["num_layers"]
        assert point.config.tables.rules[0].learning_rate == point.varied["learning_rate"]
        assert (point.series, point.study) == ("Wukong", "knob")
    assert type(points[2].config.tables.rules[0].learning_rate) is float
    assert WUKONG.model.num_layers == 1, "the base is left as it is"


def test_a_field_may_be_a_tuple_or_a_whole_part():
    points = grid(BASE, {"model.fmb_mlp.widths": ((4,), (8, 8)), "model.head": (MLPConfig((4,)),)})
    assert [point.config.model.fmb_mlp.widths for point in points] == [(4,), (8, 8)]
    assert points[0].config.model.head == MLPConfig((4,))
    assert points[1].varied["widths"] == [8, 8]
    assert json.loads(json.dumps(points[0].varied)) == points[0].varied


def test_names_are_as_short_as_the_fields_allow():
    fields = {"model.fmb_mlp.widths": ((4,),), "model.head.widths": ((4,),), "model.rank": (2,)}
    assert set(grid(BASE, fields)[0].varied) == {"fmb_mlp.widths", "head.widths", "rank"}


def test_one_at_a_time_varies_each_field_alone_and_has_the_base_once():
    points = one_at_a_time(BASE, {"model.num_layers": (1, 2, 3), "model.rank": (2, 4)})
    assert varied(points) == [
        {"num_layers": 1, "rank": 2},
        {"num_layers": 2, "rank": 2},
        {"num_layers": 3, "rank": 2},
        {"num_layers": 1, "rank": 4},
    ]
    assert points[0].config == WUKONG
    assert [(point.config.model.num_layers, point.config.model.rank) for point in points] == [
        (1, 2),
        (2, 2),
        (3, 2),
        (1, 4),
    ]


def test_seeds_come_round_by_round():
    points = over_seeds(grid(BASE, {"model.rank": (2, 3)}), (5, 7))
    assert [(point.config.train.seed, point.config.model.rank) for point in points] == [(5, 2), (5, 3), (7, 2), (7, 3)]
    assert "seed" not in points[0].varied


def test_examples_are_whole_batches_of_one_pass():
    points = over_examples(BASE, (16, 100))
    assert varied(points) == [{"examples": 16}, {"examples": 96}]
    assert [(point.config.train.max_steps, point.config.train.epochs) for point in points] == [(1, 1), (6, 1)]
    assert [examples_of(point.config, 1000) for point in points] == [16, 96]


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_shorter_run_reads_what_a_longer_one_reads_first(tiny_store, shuffle):
    data = dataclasses.replace(WUKONG.data, store=str(tiny_store), shuffle=shuffle)
    configs = [
        point.config
        for size in (8, 16)
        for point in over_examples(
            points_of("data", {"a": with_fields(WUKONG, {"data": data, "train.batch_size": size})}), (32, 64)
        )
    ]
    split = open_store(tiny_store).split("train")
    order = permuted_rows(np.arange(64), size=70, seed=0, epoch=0) if shuffle else np.arange(64)
    for config in configs:
        train = config.train
        batches = training_batches(
            split, batch_size=train.batch_size, seed=0, epochs=train.epochs, shuffle=config.data.shuffle, threads=0
        )
        steps = total_steps(config, open_store(tiny_store))
        read = [batch for batch, _ in zip(batches, range(steps), strict=False)]
        prices = np.concatenate([batch.numeric for batch in read])
        assert len(prices) == train.max_steps * train.batch_size
        np.testing.assert_array_equal(prices, split.columns["numeric"][order[: len(prices)]])


@pytest.mark.parametrize(
    ("epochs", "max_steps", "rows", "expected"),
    [(3, None, 70, 3 * 4 * 16), (3, 5, 70, 80), (3, 50, 70, 192), (3, 5, None, 80), (3, None, None, None)],
)
def test_examples_of_a_run(epochs, max_steps, rows, expected):
    config = with_fields(WUKONG, {"train.epochs": epochs, "train.max_steps": max_steps})
    assert examples_of(config, rows) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grid(BASE, {"model.num_layer": (1,)}), "model.num_layer: the config has no such field, model has"),
        (lambda: grid(BASE, {"model.num_layer": (1,)}), "did you mean 'num_layers'?"),
        (lambda: grid(BASE, {"modle.rank": (1,)}), "did you mean 'model'?"),
        (lambda: grid(BASE, {"model.type": ("DLRMConfig",)}), "model.type: the config has no such field"),
        (lambda: grid(BASE, {"tables.rules.3.l2": (1.0,)}), "tables.rules has 0"),
        (lambda: grid(BASE, {"train.plateau.factor": (0.5,)}), "train.plateau is null and has no fields"),
        (lambda: grid(BASE, {"model.rank.k": (1,)}), "model.rank is 2 and has no fields"),
        (lambda: grid(BASE, {"model.rank": ("2",)}), 'model.rank: received "2", expected int'),
        (lambda: grid(BASE, {"model.rank": (0,)}), "model.rank: received 0"),
        (lambda: grid(BASE, {"model.rank": ()}), "values of model.rank"),
        (lambda: grid(BASE, {"model.rank": (2, 2)}), "values of model.rank: ['2'] named more than once"),
        (lambda: grid(grid(BASE, {"model.rank": (2,)}), {"model.rank": (3,)}), "varied: ['rank'] named more than once"),
        (lambda: over_examples(BASE, (15,)), "examples: received 15, expected at least one batch of 16"),
        (lambda: Point("", "knob", {}, WUKONG), "series: received ''"),
        (lambda: Point("a", "knob", {"x": math.nan}, WUKONG), "expected what JSON can hold"),
        (lambda: Point("a", "knob", {"x": object()}, WUKONG), "expected what JSON can hold"),
        (lambda: Sweep("a/b", BASE), "received the name 'a/b'"),
        (lambda: Sweep("a", ()), "sweep a: it has no points"),
        (lambda: Sweep("a", over_seeds(BASE, (0, 1, 0))), "points 1 (Wukong, seed 0) and 3 (Wukong, seed 0) are one"),
    ],
)
def test_wrong_lists_are_refused(make, message):
    with pytest.raises(ConfigError) as refused:
        make()
    assert message in str(refused.value)


FILE = """
import pathlib
from tests.tiny import tiny_config
from wukong_jax.scaling.sweep import *
def get_sweep():
    {body}
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1", "defines no get_sweep(); see docs/sweeps.md for the form"),
        (FILE.format(body="return 3"), "returned int, expected Sweep"),
        (FILE.format(body="return 1 / 0"), "line 6: ZeroDivisionError"),
        (
            FILE.format(
                body="return Sweep('a', grid(points_of('knob', {'W': tiny_config('s')}), {'model.rnk': (1,)}))"
            ),
            "model.rnk: the config has no such field",
        ),
    ],
)
def test_a_faulty_file_is_refused(tmp_path, text, message):
    (tmp_path / "s.py").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_sweep(tmp_path / "s.py")
    assert message in str(refused.value)
    assert message == "model.rnk: the config has no such field" or str(tmp_path / "s.py") in str(refused.value)


def test_the_example_of_the_documentation_is_a_sweep(tmp_path):
    text = (pathlib.Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()
    (tmp_path / "s.py").write_text(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0])
    points = load_sweep(tmp_path / "s.py").points
    assert len(points) == 3 * (5 + 4 + 4)
    assert {point.study for point in points} == {"knob", "rates", "data"}


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--sweep: .*no\.py does not exist"):
        load_sweep(tmp_path / "no.py")


def test_the_source_of_the_command_line_is_every_runs(tmp_path):
    (tmp_path / "s.py").write_text(FILE.format(body="return Sweep('a', points_of('x', {'W': tiny_config('s')}))"))
    assert load_sweep(tmp_path / "s.py", "raw").points[0].config.data.source == "raw"
    assert load_sweep(tmp_path / "s.py").points[0].config.data.source is None


def planned(flops, series="a", steps=100, seed=0, **train):
    config = with_fields(LINEAR, {"train.max_steps": steps, "train.seed": seed} | train)
    return PlannedRun(Point(series, "ladder", {}, config), Cost({"model": flops}, {}, (), 0, 0, 0, 0))


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("unbounded", [False, True])
def test_shards_are_a_partition_balanced_by_flops(rng, parts, unbounded):
    runs = [planned(int(10 ** rng.uniform(3, 6)), seed=seed, steps=int(rng.integers(1, 9))) for seed in range(30)]
    if unbounded:
        runs = [dataclasses.replace(run, point=grid([run.point], {"train.max_steps": (None,)})[0]) for run in runs]
    shares = [shard(runs, part, parts) for part in range(1, parts + 1)]
    assert sorted(run.config.train.seed for share in shares for run in share) == list(range(30))
    assert all(
        [run.config.train.seed for run in share] == sorted(run.config.train.seed for run in share) for share in shares
    )
    work = [run.cost.training_flops * (1 if unbounded else run.config.train.max_steps) for run in runs]
    loads = [
        sum(run.cost.training_flops * (1 if unbounded else run.config.train.max_steps) for run in share)
        for share in shares
    ]
    # the greedy rule's bound: no part has more than the mean of the others and one run
    assert max(loads) <= sum(work) / parts + max(work)
    if parts <= 30:
        assert all(shares)


def test_shards_do_not_depend_on_the_order_of_the_list():
    runs = [planned(flops, seed=flops) for flops in (5, 50, 20, 8, 13)]
    for part in (1, 2):
        assert {run.identity for run in shard(runs, part, 2)} == {run.identity for run in shard(runs[::-1], part, 2)}


def test_models_without_products_are_spread_too():
    runs = [planned(0, seed=seed) for seed in range(6)]
    assert [len(shard(runs, part, 3)) for part in (1, 2, 3)] == [2, 2, 2]


def test_parse_shard():
    assert parse_shard("1/1") == (1, 1)
    assert parse_shard("3/12") == (3, 12)


@pytest.mark.parametrize("text", ["3/2", "0/2", "1", "1/0", "a/2", "-1/2", "1/2/3", ""])
def test_a_wrong_shard_is_refused(text):
    with pytest.raises(ConfigError, match=r"--shard: received .* expected I/N with I from 1 to N"):
        parse_shard(text)


def test_the_plan_has_every_point_and_its_own_cost():
    sweep = Sweep("a", over_seeds(grid(BASE, {"model.num_layers": (1, 2)}), (0, 1)))
    runs = plan(sweep)
    assert [run.point for run in runs] == list(sweep.points)
    one, two = runs[0].cost.training_flops, runs[1].cost.training_flops
    assert one < two
    assert [run.cost.training_flops for run in runs] == [one, two, one, two]


def test_a_point_that_cannot_be_built_is_named():
    config = with_fields(WUKONG, {"model.embedding.important": [{"feature": "nobody", "num_embeddings": 2}]})
    with pytest.raises(ConfigError, match=r"sweep a, Wukong, seed 0: .*nobody"):
        plan(Sweep("a", points_of("x", {"Wukong": config})))


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        ("train.seed", 3, True),
        ("train.max_steps", 3, True),
        ("name", "other", True),
        ("train.batch_size", 8, False),
        ("model.rank", 3, False),
        ("optimizer.learning_rate", 0.5, False),
    ],
)
def test_equal_steps_are_timed_once(field, value, same):
    assert (step_key(with_fields(WUKONG, {field: value})) == step_key(WUKONG)) == same


def test_the_order_of_timing_begins_with_each_series_ends():
    runs = [
        planned(flops, series, **{"train.batch_size": flops, "train.micro_batch": None})
        for series, sizes in (("a", (1, 2, 3, 4, 5)), ("b", (10, 20)))
        for flops in sizes
    ]
    assert [config.train.batch_size for config in measuring_order([*runs, *runs])] == [20, 5, 10, 1, 3, 4, 2]
    assert measuring_order([]) == []


def test_times_between_measured_models_are_by_flops_per_second():
    runs = [planned(flops, series, **{"train.batch_size": flops}) for series, flops in
            (("a", 2), ("a", 8), ("a", 4), ("a", 16), ("b", 4))]  # fmt: skip
    small, large, middle, beyond, _ = (step_key(run.config) for run in runs)
    flops = [3 * size * size for size in (2, 8, 4, 16)]
    found = interpolate(runs, {small: Timing(flops[0] / 100, 1.0), large: Timing(flops[1] / 400, 3.0)})
    assert found[small] == Timing(flops[0] / 100, 1.0)
    np.testing.assert_allclose(found[middle], (flops[2] / 200, 2.0), rtol=1e-12)  # halfway in log FLOPs, so in log rate
    np.testing.assert_allclose(found[beyond], (flops[3] / 400, 3.0), rtol=1e-12)
    other = interpolate([runs[1], planned(8, "b", **{"train.batch_size": 2})], {large: Timing(flops[1] / 400, 3.0)})
    np.testing.assert_allclose(other[step_key(with_fields(runs[0].config, {}))], (3 * 8 * 2 / 400, 3.0), rtol=1e-12)
    assert interpolate(runs, {}) == {}


def test_a_step_is_timed_with_and_without_a_store(tiny_store, tmp_path, compile_quickly):
    for store in (tiny_store, tmp_path / "none"):
        timing = measure(plain_config(store))
        assert timing.step_seconds > 0
        assert timing.start_seconds > 0


@pytest.mark.parametrize(("jobs", "expected"), [(1, 10.0), (2, 6.0), (3, 4.0), (9, 4.0)])
def test_runs_go_in_turn_to_the_first_worker_that_is_free(jobs, expected):
    assert makespan([4.0, 3.0, 1.0, 2.0], jobs) == expected


def test_slots_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 5, 7, 11}, raising=False)
    assert cores_of(0, 1) is None
    assert [cores_of(slot, 2) for slot in range(2)] == [[2, 3], [5, 7, 11]]
    assert [cores_of(slot, 5) for slot in range(5)] == [[2], [3], [5], [7], [11]]
    assert [cores_of(slot, 7) for slot in range(7)] == [[2], [3], [5], [7], [11], [2], [3]]


def test_the_memory_is_at_most_the_machines():
    assert 0 < machine_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_plain_lines_say_what_changed_once():
    statuses = [Status(planned(1000, seed=seed)) for seed in range(2)]
    console = memory_console()
    lines = PlainLines(console, statuses)
    statuses[1].state, statuses[1].said = "running", "step 1"
    lines.show(statuses)
    lines.show(statuses)
    statuses[1].state, statuses[1].logloss, statuses[1].seconds = "recorded", 0.51234, 7.4
    statuses[0].state, statuses[0].said = "diverged", "the loss is nan"
    lines.show(statuses)
    assert printed(console).splitlines() == [
        "0 of 2 recorded: running a, seed 1",
        "1 of 2 recorded: diverged a, seed 0, the loss is nan",
        "1 of 2 recorded: recorded a, seed 1, LogLoss 0.51234, 7 s",
    ]


def test_the_table_shows_running_runs_first_where_there_is_no_room():
    statuses = [Status(planned(1_500_000, seed=seed)) for seed in range(9)]
    statuses[0].state, statuses[5].state, statuses[7].state = "recorded", "failed", "running"
    assert [s.run.config.train.seed for s in shown_first(statuses, 3)] == [1, 5, 7]
    assert shown_first(statuses, 99) == statuses
    statuses[5].said = "[died]"
    console = memory_console()
    console.print(table("mine", shown_first(statuses, 3), statuses))
    shown = printed(console)
    assert "mine: 9 runs, 1 failed, 1 recorded, 1 running, 6 waiting" in shown
    assert "[died]" in shown
    assert "4.5" in shown


def test_the_live_table_is_drawn_in_place():
    console = memory_console(force_terminal=True, height=30)
    live = LiveTable(console, "mine")
    live.show([Status(planned(1000), state="running")])
    live.close()
    assert "running" in printed(console)
