"""A state that was saved on other devices, or with its tables placed otherwise, brought into this program's layout."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from wukong_jax.config.mesh import Placement
from wukong_jax.embeddings.optimizers import row_optimizer
from wukong_jax.embeddings.plan import EmbeddingPlan, Stack, plan_embeddings
from wukong_jax.embeddings.relayout import logical_rows, regroup, regroup_looked_up, stored_rows
from wukong_jax.models.registry import table_specs
from wukong_jax.training.optim import parameter_path
from wukong_jax.training.program import Program
from wukong_jax.training.sharding import AXES
from wukong_jax.training.state import TrainState


def layout_json(plan: EmbeddingPlan) -> dict[str, Any]:
    """What a checkpoint says of where its tables lie."""
    placements = {spec.name: stack.placement for stack in plan.stacks for spec in stack.tables}
    return {"placements": placements, "devices": max([stack.devices for stack in plan.stacks], default=1)}


@dataclasses.dataclass(frozen=True)
class SavedLayout:
    """The layout of a saved state, for a program that has another one."""

    program: Program
    plan: EmbeddingPlan

    def shapes(self) -> TrainState:
        """The saved state's shapes and dtypes."""
        return self._state(lambda stack, length: length)

    def readable(self) -> TrainState:
        """Shapes and shardings to read into: rows are filled up so that this program's devices divide them."""
        devices = self.program.mesh.size
        spread = NamedSharding(self.program.mesh, PartitionSpec(AXES))
        padded = self._state(lambda stack, length: -(-length // devices) * devices)
        place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or spread)  # noqa: E731
        return jax.tree.map(place, padded)

    def convert(self, state: TrainState) -> TrainState:
        """The state as this program has it, of one that was read into `readable`."""
        wanted = self.program.state_shardings
        old, new = self.plan, self.program.plan
        move = jax.jit(functools.partial(_moved, old, new), out_shardings=wanted.tables)
        tables = jax.block_until_ready(move(state.tables))
        slots: dict[str, dict[str, Any]] = {stack.name: {} for stack in new.row_sparse}
        for name in dict.fromkeys(name for stack in state.slots.values() for name in stack):
            arrays = {stack: found[name] for stack, found in state.slots.items() if name in found}
            there = {stack: found[name] for stack, found in wanted.slots.items() if name in found}
            of_slot = jax.jit(functools.partial(_moved, old, new), out_shardings=there)
            for stack, array in jax.block_until_ready(of_slot(arrays)).items():
                slots[stack][name] = array
        moments = jax.jit(self._moments, out_shardings=wanted.opt_state)
        ahead = state.ahead
        if ahead:
            of_rows = jax.jit(functools.partial(regroup_looked_up, old, new), out_shardings=wanted.ahead["rows"])
            ahead = ahead | {"rows": of_rows(ahead["rows"])}
        opt_state = moments(state.opt_state)
        converted = dataclasses.replace(state, tables=tables, slots=slots, opt_state=opt_state, ahead=ahead)
        return jax.block_until_ready(converted)

    def _state(self, rows_of: Any) -> TrainState:
        """This program's abstract state with the saved layout's tables, whose arrays have no sharding yet."""
        expected = self.program.abstract_state()

        def array(stack: Stack, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((rows_of(stack, shape[0]), *shape[1:]), dtype)

        tables = {stack.name: array(stack, (stack.stored_rows, stack.width), jnp.float32) for stack in self.plan.stacks}
        slots = {}
        for stack in self.plan.row_sparse:
            made = jax.eval_shape(lambda s=stack: row_optimizer(s.rule).init(s.stored_rows, s.width))
            slots[stack.name] = {name: array(stack, leaf.shape, leaf.dtype) for name, leaf in made.items()}
        ahead = expected.ahead
        if ahead:
            size = self.program.config.train.batch_size
            ahead = ahead | {
                "rows": {
                    stack.name: jax.ShapeDtypeStruct((size, stack.slots, stack.width), jnp.float32)
                    for stack in self.plan.stacks
                }
            }
        dense = {stack.name: stack for stack in self.plan.dense}

        def moment(path: tuple[Any, ...], leaf: Any) -> Any:
            name = _stack_name(path, dense)
            return leaf if name is None else array(dense[name], (dense[name].stored_rows, leaf.shape[1]), leaf.dtype)

        opt_state = jax.tree_util.tree_map_with_path(moment, expected.opt_state)
        return dataclasses.replace(expected, tables=tables, slots=slots, opt_state=opt_state, ahead=ahead)

    def _moments(self, opt_state: Any) -> Any:
        old = {stack.name: stack for stack in self.plan.dense}
        new = {stack.name: stack for stack in self.program.plan.dense}

        def moment(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
            name = _stack_name(path, old)
            if name is None:
                return leaf
            return stored_rows(new[name], logical_rows(old[name], leaf[: old[name].stored_rows]))

        return jax.tree_util.tree_map_with_path(moment, opt_state)


def saved_layout(program: Program, saved: Mapping[str, Any]) -> SavedLayout | None:
    """The layout that a checkpoint's JSON tells of; None where it is this program's own."""
    config = program.config
    specs = table_specs(config.model, config.batch_schema)
    layout = saved.get("layout", {"placements": None, "devices": 1})
    placements: dict[str, Placement] | None = layout["placements"]
    plan = plan_embeddings(config.batch_schema, specs, config.tables, placements, layout["devices"])
    same = [_places(stack) for stack in plan.stacks] == [_places(stack) for stack in program.plan.stacks]
    return None if same else SavedLayout(program, plan)


def _places(stack: Stack) -> tuple[Any, ...]:
    """What decides where each value of a stack is stored; the order of dealt rows follows from the devices."""
    devices = stack.devices if stack.placement == "dealt_rows" else None
    return stack.name, stack.tables, stack.placement, stack.stored_rows, devices


def _moved(old: EmbeddingPlan, new: EmbeddingPlan, arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    stored = {stack.name: arrays[stack.name][: stack.stored_rows] for stack in old.stacks if stack.name in arrays}
    return regroup(old, new, stored)


def _stack_name(path: tuple[Any, ...], stacks: Mapping[str, Stack]) -> str | None:
    parts = parameter_path(path).split("/")
    return parts[-1] if len(parts) > 1 and parts[-2] == "tables" and parts[-1] in stacks else None
