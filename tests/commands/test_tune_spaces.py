"""The project's search spaces: every trial gives a config that can be trained, the first one the config's own."""

import pathlib

import optuna
import pytest

from wukong_jax.config.command_line import load_config_file

BASES = {
    "criteo_tb": ["configs/criteo_terabyte.py"] + [f"configs/baselines/{name}_criteo_tb.py" for name in (
        "afn_plus", "autoint_plus", "dcnv2", "dlrm", "finalmlp", "masknet", "xdeepfm",
    )],
    "wukong_small": ["configs/frappe.py", "configs/movielens_100k.py"],
    "rivals_small": [f"configs/baselines/{name}_frappe.py" for name in (
        "afn_plus", "autoint_plus", "dcnv2", "deepfm", "dlrm", "dnn", "finalmlp", "finalnet", "masknet",
        "wide_deep", "xdeepfm",
    )] + [f"configs/baselines/{name}_movielens_100k.py" for name in (
        "autoint_plus", "dcnv2", "deepfm", "dlrm", "dnn", "finalmlp", "finalnet", "masknet", "xdeepfm",
    )],
}  # fmt: skip


def test_every_space_of_the_project_is_tried_here(pytestconfig):
    assert {path.stem for path in (pytestconfig.rootpath / "configs" / "spaces").glob("*.py")} == set(BASES)


@pytest.mark.parametrize(("name", "base"), [(name, base) for name, bases in BASES.items() for base in bases])
def test_the_projects_spaces_give_configs_that_can_be_described(name, base, pytestconfig, monkeypatch):
    from wukong_jax.tuning.space import for_model, load_space, propose

    monkeypatch.chdir(pytestconfig.rootpath)
    config = load_config_file(pathlib.Path(base))
    space = load_space(pathlib.Path(f"configs/spaces/{name}.py"))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for start in space.starts(config):
        study.enqueue_trial(start)
    configs = [propose(space, study.ask(), config) for _ in range(30)]
    assert len({config.identity_hash() for config in configs}) > 8
    assert {config.identity()["train"]["seed"] for config in configs} == {config.train.seed}
    assert name == "criteo_tb" or space.starts(config)
    for start, trial in zip(space.starts(config), study.trials, strict=False):
        assert trial.params == start  # within the ranges: Optuna only warns where a start is not
    if name != "criteo_tb":
        assert configs[0].identity() == config.identity()  # the first trial has the config's own settings
    with pytest.raises(Exception, match=f"no entry for {type(config.model).__name__}"):
        for_model({}, config)
