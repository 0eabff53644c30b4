"""How a profiler trace is shared out among the parts of a training step."""

from benchmarks.breakdown import part_of, share_out, sort_operations


def test_instants_are_shared_by_what_runs_in_them() -> None:
    intervals = [(0.0, 4.0, "forward"), (2.0, 6.0, "backward"), (7.0, 8.0, "backward")]
    assert share_out(intervals) == {"forward": 3.0, "backward": 4.0, "idle": 1.0}


def test_a_name_stack_tells_component_and_pass() -> None:
    step = "jit(train_step)/while/body/closed_call"
    expected = {
        f"{step}/gather/gather": "embeddings forward",
        f"{step}/jvp(Wukong)/embedding_layer/concatenate": "embeddings forward",
        f"{step}/jvp(Wukong)/layer_0/fmb.together/mlp/hidden_0/dot_general": "mlp forward",
        f"{step}/transpose(jvp(Wukong))/head/hidden_0/dot_general": "mlp backward",
        f"{step}/transpose(jvp(Wukong))/layer_0/fmb.together/ffi_call": "fm backward",
        f"{step}/jvp(Wukong)/layer_11/ffi_call": "add_norm forward",
        f"{step}/transpose(jvp())/div": "loss backward",
        f"{step}/add": "outside",
        "jit(train_step)/dense_update/add": "dense_update",
        "jit(train_step)/row_update/scatter": "row_update",
        "state.params": None,
    }
    assert {name: part_of(name) for name in expected} == expected


def test_operations_are_sorted_by_name_inner_operations_and_operands() -> None:
    hlo = """
%fused (p: f32[8]) -> f32[8] {
  %p = f32[8] parameter(0)
  ROOT %inner = f32[8] add(%p, %p), metadata={op_name="jit(step)/transpose(jvp(Wukong))/head/add"}
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0), metadata={op_name="state.params"}
  %gathered = f32[8]{0} gather(%a), metadata={op_name="jit(step)/gather/gather"}
  %dot.1 = f32[8]{0} dot(%gathered, %a), metadata={op_name="jit(step)/jvp(Wukong)/head/dot_general"}
  %dot.2 = f32[8]{0} dot(%dot.1, %a)
  %fusion.1 = f32[8]{0} fusion(%dot.2), kind=kLoop, calls=%fused
  %fusion.2 = f32[8]{0} fusion(%dot.2), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/jvp(Wukong)/layer_0/add"}
  %dot.3 = f32[8]{0} dot(%fusion.1, %dot.1)
  %while.1 = f32[8]{0} while(%dot.3), metadata={op_name="jit(step)/while"}
  ROOT %scatter.1 = f32[8]{0} scatter(%dot.3), metadata={op_name="jit(step)/row_update/scatter"}
}
"""
    parts, containers = sort_operations(hlo)
    assert containers == {"while.1"}
    expected = {
        "gathered": "embeddings forward",
        "dot.1": "mlp forward",
        "dot.2": "mlp forward",
        "fusion.1": "mlp backward",
        "fusion.2": "add_norm forward",
        "dot.3": "mlp backward",
        "scatter.1": "row_update",
    }
    assert {name: parts[name] for name in expected} == expected
    assert "a" not in parts
