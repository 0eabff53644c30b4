import re

import pytest

from wukong_jax.config.command_line import TrainArguments, parse_run_arguments
from wukong_jax.config.distributed import DistributedConfig
from wukong_jax.errors import ConfigError

WHOLE = {"coordinator": "node1:9876", "processes": 4, "process": 3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"processes": 2}, "distributed.processes: received 2 without a coordinator"),
        ({"process": 0}, "distributed.process: received 0 without a coordinator"),
        ({"coordinator": "auto", "processes": 2}, "with --distributed.coordinator auto the launcher says so"),
        ({"coordinator": "auto", "process": 0}, "distributed.process: received 0"),
        ({"coordinator": "node1:9876"}, "without --distributed.processes and --distributed.process;"),
        ({"coordinator": "node1:9876", "processes": 2}, "without --distributed.process;"),
        ({"coordinator": "node1:9876", "process": 0}, "without --distributed.processes;"),
        (WHOLE | {"coordinator": "node1"}, "received 'node1', expected host:port"),
        (WHOLE | {"coordinator": ":9876"}, "received ':9876', expected host:port"),
        (WHOLE | {"coordinator": "node1:"}, "received 'node1:', expected host:port"),
        (WHOLE | {"coordinator": "node1:0"}, "a port of 1 to 65535"),
        (WHOLE | {"coordinator": "node1:65536"}, "a port of 1 to 65535"),
        (WHOLE | {"coordinator": "node1:http"}, "a port of 1 to 65535"),
        (WHOLE | {"processes": 0}, "distributed.processes: received 0, expected a number above 0"),
        (WHOLE | {"process": 4}, "distributed.process: received 4, expected 0 to 3"),
        (WHOLE | {"process": -1}, "distributed.process: received -1, expected 0 to 3"),
        ({"heartbeat_timeout": 0}, "distributed.heartbeat_timeout: received 0"),
        ({"initialization_timeout": -1}, "distributed.initialization_timeout: received -1"),
    ],
)
def test_settings_that_are_not_whole_are_refused(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        DistributedConfig(**settings)


@pytest.mark.parametrize(
    ("coordinator", "address"),
    [("localhost:9876", ("localhost", 9876)), ("10.0.0.1:65535", ("10.0.0.1", 65535)), ("[::1]:1", ("::1", 1))],
)
def test_an_address_is_a_host_and_a_port(coordinator, address):
    config = DistributedConfig(coordinator, processes=2, process=1)
    assert config.wanted
    assert config.address == address


def test_a_single_process_is_no_job():
    assert not DistributedConfig().wanted
    assert DistributedConfig("auto").wanted


def test_the_command_line_takes_it_beside_the_run():
    options = ["--distributed.coordinator", "localhost:1", "--distributed.processes", "2", "--distributed.process", "1"]
    found = parse_run_arguments(TrainArguments, ["--config", "configs/movielens_100k.py", *options], "train.py")
    assert found.distributed == DistributedConfig("localhost:1", 2, 1)
    assert not hasattr(found.run, "distributed")
