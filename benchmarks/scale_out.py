"""Collectives of the training step on 8 devices, counted; and a model of the step at the paper's scale (no GPU needed).

    python benchmarks/scale_out.py                                # print the tables
    python benchmarks/scale_out.py --write docs/scale-out.md      # put them between the markers of the page

The first table counts bytes in the HLO that XLA's CPU compiler makes of the real step. The others are a model: nothing
in them was measured. Every assumption is a constant below; change one and run again.
"""

import argparse
import dataclasses
import math
import pathlib
import sys
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from wukong_jax.config.command_line import load_config_file
from wukong_jax.config.mesh import MeshConfig, Placement, PlacementRule
from wukong_jax.config.optimizer import TableRule
from wukong_jax.config.run import RunConfig
from wukong_jax.embeddings.exchange import room_for
from wukong_jax.embeddings.planner import Load, StackModel, TableChoice, choices_of
from wukong_jax.errors import DataError, UserError
from wukong_jax.files import write_text
from wukong_jax.models.registry import table_specs
from wukong_jax.scaling.collectives import PRESETS, Collective, Hardware, find_collectives, largest_collective
from wukong_jax.scaling.page_table import Table
from wukong_jax.scaling.paper_ladder import PAPER_ROWS, PaperRow
from wukong_jax.training.program import build_program
from wukong_jax.training.state import blank_batch

ROOT = pathlib.Path(__file__).resolve().parents[1]

# The counted step: configs/criteo_kaggle.py (26 tables of width 16, 2.4 million rows), ids by Zipf's law of exponent 1.
COUNTED = ROOT / "configs" / "criteo_kaggle.py"
COUNTED_BATCH, COUNTED_MESH = 8192, (4, 2)
DEVICES_HERE = 8

# The paper (section 4, appendix C): 256 H100, batch 262,144, 627.7 billion parameters, d = 160, 720 features.
HOSTS, HOST_DEVICES, BATCH, WIDTH = 32, 8, 262_144, 160
TABLE_PARAMETERS = 627.6e9  # assumed: what the smallest model's 627.74 leave to tables; the rest of a row is dense
LOOKUPS = 720  # assumed: one row of full width for each feature
EXAMPLES = 146e9  # the paper's data, one pass

# Assumptions about the workload and what is reached of the data sheets' rates.
DISTINCT = 0.5  # of a device's 737,280 places a step, the share that asks for different rows
MFU = 0.3  # of the peak of dense bfloat16 products
PEAK_FLOPS = 989e12  # NVIDIA H100 SXM, bfloat16, without sparsity
LINKS_REACHED, MEMORY_REACHED = 0.8, 0.8
STACKS = 2  # 3.9 billion rows are more than the 2.1 billion of one stack's int32 ids: two rules, two stacks
STATE_BYTES = 16  # of a dense parameter: itself, gradient, two moments of Adam
LARGEST_REPLICATED = 40e9  # bytes of dense state that a GPU is let hold; from there on fsdp
SIZED_CAPACITY = 1.2 * DISTINCT  # mesh.exchange_capacity with 20 % to spare over what is asked; the default is 1.5


def scale_hardware() -> Hardware:
    """An H100 with what is reached of its rates."""
    sheet = PRESETS["h100"]
    return dataclasses.replace(
        sheet,
        memory_bandwidth=MEMORY_REACHED * sheet.memory_bandwidth,
        link=LINKS_REACHED * sheet.link,
        network=LINKS_REACHED * sheet.network,
    )


# --- the counted step


class Plan(NamedTuple):
    """A way to lay out the counted step."""

    name: str
    placement: str
    options: dict[str, object] = {}  # noqa: RUF012, never changed
    progressive: bool = False
    """Whether each batch is scored before it is learned from."""


PLANS = (
    Plan("all replicated", "replicated"),
    Plan("all rows", "rows"),
    Plan("all dealt_rows", "dealt_rows"),
    Plan("all dealt_rows, bfloat16 exchange", "dealt_rows", {"exchange_dtype": "bfloat16"}),
    Plan("the same, capacity 0.6", "dealt_rows", {"exchange_dtype": "bfloat16", "exchange_capacity": 0.6}),
    Plan("all columns", "columns"),
    Plan("the planner's (h100)", "auto"),
    Plan("all dealt_rows, dense fsdp", "dealt_rows", {"dense": "fsdp"}),
    Plan("all dealt_rows, dense tensor", "dealt_rows", {"dense": "tensor"}),
    Plan("all dealt_rows, progressive validation", "dealt_rows", {}, True),
)


def counted_config(plan: Plan) -> RunConfig:
    """The config on the mesh; the planner's placements, for H100, are written out as if they had been asked for."""
    config = load_config_file(COUNTED)
    sizes = {"batch_size": COUNTED_BATCH, "eval_batch_size": COUNTED_BATCH}
    train = dataclasses.replace(config.train, progressive=plan.progressive, **sizes)  # type: ignore[arg-type]

    def placed(*rules: PlacementRule) -> RunConfig:
        mesh = MeshConfig(*COUNTED_MESH, placements=rules, **plan.options)  # type: ignore[arg-type]
        return dataclasses.replace(config, train=train, mesh=mesh)

    if plan.placement != "auto":
        return placed(PlacementRule(".*", plan.placement))  # type: ignore[arg-type]
    choices = choices_of(placed(PlacementRule()), table_specs(config.model, config.batch_schema), PRESETS["h100"])
    return placed(*(PlacementRule(f"^{choice.table.name}$", choice.placement) for choice in choices))


class Counted(NamedTuple):
    """Bytes that a device sends in a step."""

    tables: float
    dense: float
    further_round: float
    """In each round of exchange after the first, which most steps do not come to."""
    collectives: int
    """In a step of one round."""
    largest: Collective


def count(config: RunConfig) -> Counted:
    """Count the step's collectives.

    Ids come from the compiled program, where XLA has struck out what would travel twice; rows from the program before
    the CPU compiler, which widens bfloat16. All collectives that the program itself asks for are those of tables.
    """
    program = build_program(config, 10)
    batch = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(lambda: blank_batch(config, config.train.batch_size)),
        program.batch_shardings,
    )
    lowered = program.train_step.lower(program.abstract_state(), batch)  # type: ignore[attr-defined]
    compiled, asked = find_collectives(lowered.compile().as_text()), find_collectives(lowered.as_text("hlo"))
    once = [one for one in compiled if one.times == 1]
    integers = sum(one.sent_bytes for one in once if one.arrays[0].dtype == "s32")
    rows = [one for one in asked if one.times == 1 and one.arrays[0].dtype != "s32"]
    widened = sum(one.sent_bytes * (2 if one.arrays[0].dtype == "bf16" else 1) for one in rows)
    rounds = [one for one in asked if one.times is None]
    largest = largest_collective(compiled)
    assert largest is not None
    return Counted(
        sum(one.sent_bytes for one in rows) + integers,
        sum(one.sent_bytes for one in once) - widened - integers,
        sum(one.sent_bytes for one in rounds),
        len(once),
        largest,
    )


def least(config: RunConfig, choices: tuple[TableChoice, ...]) -> tuple[float, float]:
    """Bytes that a device must send for its tables; the most asked of one owner over a round's room. For Zipf ids.

    Rows: each distinct row that a device needs of another travels once, its id before it, its gradient back. Columns:
    the same for all devices' distinct rows, and for row-wise Adagrad a sum over the columns of each row. Replicated:
    the smaller of all devices' distinct rows sent to all, and of a ring's sum over the rows that any device touched.
    """
    rng = np.random.default_rng(0)
    devices, value = config.mesh.devices, 2 if config.mesh.exchange_dtype == "bfloat16" else 4
    others = (devices - 1) / devices
    stacks: dict[tuple[Placement, TableRule, int], list[np.ndarray]] = {}
    sizes: dict[tuple[Placement, TableRule, int], int] = {}
    for choice in choices:
        draw = np.floor(choice.table.rows ** rng.random((devices, config.train.batch_size // devices))) - 1
        key = (choice.placement, choice.rule, choice.table.width)
        stacks.setdefault(key, []).append(draw.astype(np.int64) + sizes.get(key, 0))
        sizes[key] = sizes.get(key, 0) + choice.table.rows
    total = fullest = 0.0
    for (placement, rule, width), ids in stacks.items():
        by_device = np.concatenate(ids, axis=1)
        asked = [np.unique(row) for row in by_device]
        own, together = sum(map(len, asked)) / devices, len(np.unique(by_device))
        if placement in ("rows", "dealt_rows"):
            block = math.ceil(sizes[placement, rule, width] / devices)
            owners = [row % devices if placement == "dealt_rows" else row // block for row in asked]
            room = room_for(by_device.shape[1], devices, config.mesh.exchange_capacity)
            fullest = max(fullest, *(np.bincount(owner).max() / room for owner in owners))
            total += others * own * (4 + 2 * width * value)
        elif placement == "columns":
            mean = 2 * others * together * 4 if rule.name == "rowwise_adagrad" else 0.0
            total += (devices - 1) * own * 4 + 2 * others * own * width * value + mean
        else:
            total += min((devices - 1) * own * (4 + width * value), 2 * others * together * (4 + width * 4))
    return total, fullest


def counted_table() -> Table:
    """Plan by plan; per device and step."""
    rows = []
    for plan in PLANS:
        config = counted_config(plan)
        choices = choices_of(config, table_specs(config.model, config.batch_schema), PRESETS["h100"])
        found, (lowest, fullest) = count(config), least(config, choices)
        large = f"{found.largest.kind} {_mib(found.largest.whole_bytes)}"
        planned = sum(choice.bytes_moved for choice in choices)
        rounds = (_mib(found.further_round), f"{fullest:.2f}") if fullest else ("-", "-")
        more = (f"{found.tables / lowest:.2f}", _mib(found.dense), *rounds, str(found.collectives), large)
        rows.append((plan.name, *map(_mib, (found.tables, planned, lowest)), *more))
    headings = ("plan", "tables, counted", "by the planner", "least for the plan", "counted / least", "rest, counted")
    title = f"MiB that a device sends in a step; criteo_kaggle, batch {COUNTED_BATCH:,}, {DEVICES_HERE} devices (4 x 2)"
    return Table(title, (*headings, "a further round", "fullest / room", "collectives", "largest, MiB"), tuple(rows))


# --- the model


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One step at scale."""

    gflop: float = PAPER_ROWS[3].gflop
    """Training GFLOP of an example."""
    dense_parameters: float = PAPER_ROWS[3].billion_parameters * 1e9 - TABLE_PARAMETERS
    batch: int = BATCH
    width: int = WIDTH
    lookups: int = LOOKUPS
    capacity: float = SIZED_CAPACITY
    dtype: str = "bfloat16"
    dense: str = "replicated"
    gradient_bytes: int = 4
    """Of a dense parameter's gradient on its way."""
    mfu: float = MFU
    placement: Placement = "dealt_rows"
    hardware: Hardware = dataclasses.field(default_factory=scale_hardware)

    @property
    def load(self) -> Load:
        """Rows and places of one of the stacks; as many table parameters whatever the width."""
        rows = TABLE_PARAMETERS / self.width / STACKS
        return Load(round(rows), self.batch * self.lookups // STACKS)

    @property
    def stack(self) -> StackModel:
        """What the planner knows of a stack."""
        mesh = MeshConfig(HOSTS, HOST_DEVICES, exchange_capacity=self.capacity, exchange_dtype=self.dtype)  # type: ignore[arg-type]
        return StackModel(mesh, self.hardware, self.width, TableRule(name="rowwise_adagrad"))


class Step(NamedTuple):
    """Milliseconds of the parts of a step."""

    compute: float
    exchange: float
    memory: float
    dense: float

    @property
    def serial(self) -> float:
        """One after another, as the step is now."""
        return sum(self)

    @property
    def overlapped(self) -> float:
        """All transfers and table work behind the dense compute, or the other way round: the bound of a pipeline."""
        return max(self.compute + self.memory, self.exchange + self.dense)

    @property
    def bound(self) -> str:
        """The part that takes longest."""
        names = {"compute": "compute", "exchange": "all-to-all", "memory": "HBM", "dense": "dense gradient"}
        return names[max(self._fields, key=lambda name: getattr(self, name))]


def step_of(scenario: Scenario) -> Step:
    """The model: FLOPs at the MFU, bytes at the rates reached, latencies of each collective."""
    devices, stack = HOSTS * HOST_DEVICES, scenario.stack
    rings, exchanges = stack.transfers(scenario.load, scenario.placement)
    network = sum(scenario.hardware.ring_seconds(sent, devices) for sent in rings)
    network += sum(scenario.hardware.exchange_seconds(sent, devices) for sent in exchanges)
    memory = stack.seconds(scenario.load, scenario.placement) - network
    compute = scenario.batch / devices * scenario.gflop * 1e9 / (PEAK_FLOPS * scenario.mfu)
    return Step(1e3 * compute, 1e3 * STACKS * network, 1e3 * STACKS * memory, 1e3 * dense_seconds(scenario))


def dense_seconds(scenario: Scenario) -> float:
    """Transfers of the dense side, as the step was counted to do them.

    The gradient by one all-reduce over all devices; under fsdp the parameters are gathered once too, in each host.
    """
    hardware, devices = scenario.hardware, HOSTS * HOST_DEVICES
    gradient = scenario.gradient_bytes * scenario.dense_parameters
    seconds = hardware.ring_seconds(2 * (devices - 1) / devices * gradient, devices)
    if scenario.dense == "replicated":
        return seconds
    parameters = (HOST_DEVICES - 1) / HOST_DEVICES * 4 * scenario.dense_parameters
    return seconds + hardware.ring_seconds(parameters, HOST_DEVICES)


def of_row(row: PaperRow, **more: object) -> Scenario:
    """A model of the paper's ladder."""
    dense = row.billion_parameters * 1e9 - TABLE_PARAMETERS
    return dataclasses.replace(Scenario(), gflop=row.gflop, dense_parameters=dense, **more)  # type: ignore[arg-type]


def ladder_table() -> Table:
    """The paper's seven models."""
    rows = []
    for row in PAPER_ROWS:
        replicated, fsdp = (of_row(row, dense=dense) for dense in ("replicated", "fsdp"))
        fits = STATE_BYTES * replicated.dense_parameters <= LARGEST_REPLICATED
        sized, plain = step_of(replicated if fits else fsdp), step_of(of_row(row, capacity=1.5, dtype="float32"))
        steps = EXAMPLES / BATCH
        hours = " / ".join(f"{steps * 1e-3 * time / 3600:.1f}" for time in (sized.serial, sized.overlapped))
        parts = (
            sized.compute,
            plain.exchange,
            sized.exchange,
            sized.memory,
            step_of(replicated).dense,
            step_of(fsdp).dense,
        )
        more = (sized.serial, sized.overlapped)
        cells = (f"{row.gflop:g}", f"{of_row(row).dense_parameters / 1e9:.2f}", *map(_ms, (*parts, *more)))
        rows.append((*cells, sized.bound, hours))
    headings = (
        "GFLOP an example", "dense parameters, billions", "compute", "all-to-all, float32, capacity 1.5",
        f"all-to-all, bfloat16, capacity {SIZED_CAPACITY:g}", "HBM of tables", "dense, replicated", "dense, fsdp of 8",
        "sum", "overlapped", "longest part", "hours for 146 billion examples: sum / overlapped",
    )  # fmt: skip
    title = "Modelled milliseconds of a step; sums with bfloat16, the sized capacity, and fsdp where it is needed"
    return Table(title, headings, tuple(rows))


def variations() -> Iterator[tuple[str, Scenario]]:
    """One thing changed at a time."""
    base, sheet = Scenario(), scale_hardware()
    change = dataclasses.replace
    yield "base: 5.6 GFLOP", base
    yield "exchange in float32", change(base, dtype="float32")
    yield "capacity 1.5, the default", change(base, capacity=1.5)
    yield "all rows distinct (capacity 1.2)", change(base, capacity=1.2)
    yield "a quarter distinct (capacity 0.3)", change(base, capacity=0.3)
    yield "d = 80 (tables and exchange only)", change(base, width=80)
    yield "d = 320 (tables and exchange only)", change(base, width=320)
    yield "batch 65,536", change(base, batch=BATCH // 4)
    yield "batch 1,048,576", change(base, batch=4 * BATCH)
    yield "360 lookups an example", change(base, lookups=360)
    yield "1,440 lookups an example", change(base, lookups=1440)
    yield "network of 200 Gb/s a GPU", change(base, hardware=change(sheet, network=sheet.network / 2))
    yield "network of 800 Gb/s a GPU", change(base, hardware=change(sheet, network=sheet.network * 2))
    yield "MFU 0.15", change(base, mfu=0.15)
    yield "MFU 0.45", change(base, mfu=0.45)
    yield "dense fsdp, model axis of 8", change(base, dense="fsdp")
    yield "dense gradient in bfloat16, as the paper (not built)", change(base, gradient_bytes=2)


def sensitivity_table() -> Table:
    """What a change does to the middle model."""
    rows = []
    for name, scenario in variations():
        step = step_of(scenario)
        times = map(_ms, (step.compute, step.exchange, step.memory, step.dense, step.serial, step.overlapped))
        rate = f"{scenario.batch / step.serial / 1e3:,.1f}"
        rows.append((name, *times, step.bound, rate))
    headings = ("changed", "compute", "all-to-all", "HBM of tables", "dense gradient", "sum", "overlapped")
    title = "Modelled milliseconds of a step, one thing changed at a time"
    return Table(title, (*headings, "longest part", "million examples/s (sum)"), tuple(rows))


def placement_table() -> Table:
    """Rows against columns where both are possible: d = 256, as many table parameters."""
    rows = []
    kinds: tuple[Placement, ...] = ("dealt_rows", "columns", "replicated")
    for placement in kinds:
        scenario = dataclasses.replace(Scenario(), width=256, placement=placement)
        step, load, devices = step_of(scenario), scenario.load, HOSTS * HOST_DEVICES
        rings, exchanges = scenario.stack.transfers(load, placement)
        table, slots = (STACKS * part for part in scenario.stack.memory(load.rows, placement))
        sent = (STACKS * sum(rings) / 2**20, STACKS * sum(exchanges) / 2**20)
        ids = {"dealt_rows": load.places // devices * (1 + scenario.capacity)}.get(placement, float(load.places))
        sizes = (f"{table / 2**30:,.1f}", f"{slots / 2**30:,.2f}", *(f"{size:,.0f}" for size in sent))
        rows.append((placement, *sizes, f"{STACKS * ids / 1e6:,.1f}", _ms(step.exchange), _ms(step.memory)))
    headings = ("placement", "table, GiB", "slots, GiB", "rings, MiB", "all-to-all, MiB", "ids merged, millions")
    title = f"Modelled: placements at d = 256 on {HOSTS * HOST_DEVICES} devices; of each device and step"
    return Table(title, (*headings, "transfers, ms", "HBM, ms"), tuple(rows))


def memory_table() -> Table:
    """Tables and dense state of each GPU."""
    devices = HOSTS * HOST_DEVICES
    values = TABLE_PARAMETERS / devices
    slots = TABLE_PARAMETERS / WIDTH / devices * 4
    rows = [
        ("tables, float32, as built", f"{4 * values / 2**30:.1f}"),
        ("tables, float16, as in the paper (not built)", f"{2 * values / 2**30:.1f}"),
        ("row-wise Adagrad", f"{slots / 2**30:.2f}"),
    ]
    for row in (PAPER_ROWS[0], PAPER_ROWS[3], PAPER_ROWS[-1]):
        state = STATE_BYTES * of_row(row).dense_parameters
        shares = ((1, "replicated"), (8, "fsdp, model axis of 8"), (32, "fsdp, model axis of 32"))
        rows += [(f"dense state at {row.gflop:g} GFLOP, {name}", f"{state / n / 2**30:.1f}") for n, name in shares]
        whole = f"{4 * of_row(row).dense_parameters / 2**30:.1f}"
        rows.append((f"parameters gathered by fsdp at {row.gflop:g} GFLOP, kept for the backward pass", whole))
    fewest = math.ceil(TABLE_PARAMETERS * 4 * (1 + 1 / WIDTH) / (0.75 * PRESETS["h100"].memory))
    rows.append(("fewest H100 whose memory holds the float32 tables in three quarters of it", str(fewest)))
    return Table("Computed: GiB of each of 256 GPUs", ("what", "GiB"), tuple(rows))


def _mib(size: float) -> str:
    return f"{size / 2**20:.2f}"


def _ms(time: float) -> str:
    return f"{time:.1f}" if time < 100 else f"{time:,.0f}"


def rewritten(text: str, tables: dict[str, Table]) -> str:
    """The page with each table between its markers; raises `DataError` where they are missing."""
    for name, table in tables.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise DataError(f"the page has no `{begin}` ... `{end}`; add them where the table is to stand")
        text = f"{before}{begin}\n{table.markdown()}{end}{after}"
    return text


def main() -> int:
    """Print or write all tables; exit code 2 where the page cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=pathlib.Path, help="page with markers, docs/scale-out.md")
    page = parser.parse_args().write
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES_HERE)
    makers = {
        "counted": counted_table, "memory": memory_table, "ladder": ladder_table, "sensitivity": sensitivity_table,
        "placements": placement_table,
    }  # fmt: skip
    tables = {name: make() for name, make in makers.items()}
    try:
        if page is None:
            print("\n".join(table.markdown() for table in tables.values()))
        else:
            write_text(page, rewritten(page.read_text(encoding="utf-8"), tables))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
