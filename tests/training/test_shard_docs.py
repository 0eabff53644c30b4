"""What the pages on many devices and processes say can be run: their commands, the manifest, the modelled tables."""

import pathlib
import re
import shlex

import pytest
import yaml

from benchmarks.scale_out import ladder_table, memory_table, placement_table, rewritten, sensitivity_table
from wukong_jax.config.command_line import TrainArguments, parse_run_arguments
from wukong_jax.scaling.page_table import Table

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
OF_LAUNCHERS = {
    "$INDEX": "3",
    "$COORDINATOR": "node1:9876",
    "$OMPI_COMM_WORLD_SIZE": "4",
    "$OMPI_COMM_WORLD_RANK": "3",
}


def blocks(language: str = r"\w*") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", LAUNCH, re.MULTILINE | re.DOTALL)


def train_commands() -> list[str]:
    """What follows `train.py`, lines joined and shell variables filled in, of all blocks but the manifest."""
    found = []
    for block in blocks():
        if not block.startswith("apiVersion"):
            found += re.findall(r"python train\.py ([^'\n]*)", block.replace("\\\n", " "))
    return [*found, manifest_command()]


def pods() -> tuple[dict, dict, dict]:
    """JobSet, its one job, and the container of its pods."""
    (text,) = blocks("yaml")
    jobset = yaml.safe_load(text)
    (job,) = jobset["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    return jobset, job, container


def manifest_command() -> str:
    _, _, container = pods()
    (line,) = container["args"]
    return line.removeprefix("exec python train.py ")


def test_every_launcher_has_its_command():
    assert len(train_commands()) == 5  # two by hand, Slurm, Open MPI, Kubernetes


@pytest.mark.parametrize("command", train_commands())
def test_commands_to_launch_are_understood(command: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    for name, value in OF_LAUNCHERS.items():
        command = command.replace(name, value)
    options = parse_run_arguments(TrainArguments, shlex.split(command), "train.py")
    assert options.distributed.wanted
    assert options.run.mesh.devices > 1


def test_the_manifest_names_the_pods_as_kubernetes_does():
    jobset, job, container = pods()
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    name, count = jobset["metadata"]["name"], job["template"]["spec"]["completions"]
    assert job["template"]["spec"]["parallelism"] == count
    (port,) = (found["containerPort"] for found in container["ports"])
    command = manifest_command()
    assert f"--distributed.coordinator {name}-{job['name']}-0-0.{name}:{port} " in command
    assert f"--distributed.processes {count} " in command
    assert f"--mesh.data {count * container['resources']['limits']['nvidia.com/gpu']} " in command
    policy = job["template"]["spec"]["podFailurePolicy"]["rules"]
    assert policy[0]["onExitCodes"]["containerName"] == container["name"]
    volumes = {volume["name"] for volume in job["template"]["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("memory", memory_table()),
        ("ladder", ladder_table()),
        ("sensitivity", sensitivity_table()),
        ("placements", placement_table()),
    ],
)
def test_the_page_on_scale_has_what_its_script_computes(name: str, table: Table):
    page = (ROOT / "docs" / "scale-out.md").read_text(encoding="utf-8")
    assert rewritten(page, {name: table}) == page
