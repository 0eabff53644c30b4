"""In float32 too each of 200 steps over several devices has the loss that it has on one, whatever lies where."""

from collections.abc import Iterator

import numpy as np
import pytest

from tests.training.shard_cases import CASES, small_exchange_rooms, trained

pytestmark = pytest.mark.usefixtures("compile_quickly")
DEFAULT = "columns, fsdp"
"""In the default suite; float64, test_shard_equality.py, has more."""


@pytest.fixture(scope="module", autouse=True)
def small_rooms() -> Iterator[None]:
    with small_exchange_rooms():
        yield


@pytest.mark.parametrize(
    "case", [case if case == DEFAULT else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_every_steps_loss_is_that_of_one_device(case: str):
    one, many = (trained(found, "float32") for found in (CASES[case].on_one_device(), CASES[case]))
    assert many.losses.dtype == np.float32
    assert np.ptp(one.losses) > 0.02  # hundreds of times the tolerance
    np.testing.assert_allclose(many.losses, one.losses, rtol=1e-5)
