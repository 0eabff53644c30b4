import jax.numpy as jnp
import pytest

from wukong_jax.errors import ConfigError
from wukong_jax.ops.platform import CPU_COMPILER_OPTIONS, check_implementation, compiler_options


@pytest.mark.parametrize(
    ("name", "dtype", "platform", "fix"),
    [
        ("mosaic_gpu", "bfloat16", "cpu", "gpu only; use 'auto'"),
        ("tpu", "float32", "gpu", "tpu only; use 'auto'"),
        ("xla", "bfloat16", "cpu", "use 'auto', or model.dtype 'float32'"),
        ("reference", "bfloat16", "cpu", "use 'auto', or model.dtype 'float32'"),
    ],
)
def test_what_a_platform_cannot_run_is_refused(name, dtype, platform, fix):
    with pytest.raises(ConfigError, match=f"model.implementation: received '{name}'.*{fix}"):
        check_implementation(name, jnp.dtype(dtype), platform)


@pytest.mark.parametrize(
    ("name", "dtype", "platform"),
    [
        ("auto", "bfloat16", "cpu"),
        ("xla", "float32", "cpu"),
        ("xla", "bfloat16", "gpu"),
        ("mosaic_gpu", "bfloat16", "gpu"),
        ("tpu", "bfloat16", "tpu"),
    ],
)
def test_the_rest_is_let_through(name, dtype, platform):
    check_implementation(name, jnp.dtype(dtype), platform)


def test_only_the_cpu_compiles_with_options():
    assert compiler_options("cpu") == CPU_COMPILER_OPTIONS
    assert compiler_options("gpu") == compiler_options("tpu") == {}
