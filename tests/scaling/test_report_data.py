"""Runs of a folder by study and setting, what may not stand together, and changes against a base."""

import math
import statistics

import pytest

from tests.scaling.report_made import (
    ABLATION,
    BATCH,
    FLOOR,
    KNOB_BASE,
    KNOBS,
    Made,
    ablation,
    knobs,
    record_of,
    write_made,
)
from wukong_jax.errors import ConfigError, DataError
from wukong_jax.scaling.report import make_report
from wukong_jax.scaling.report_data import read_runs, study_of
from wukong_jax.scaling.report_effects import effects, label, shown_value
from wukong_jax.scaling.report_tables import runs_table, settings_table, totals_table

ONE = Made("Wukong", "ladder", {"budget_mflop": 1.0}, 1.0, 0.5)
OTHER = Made("DLRM", "ladder", {"budget_mflop": 2.0}, 2.0, 0.6)


def study(folder, runs, name):
    return study_of(read_runs(write_made(folder, runs)), name)


def cells(table, heading):
    return [row[table.headings.index(heading)] for row in table.rows]


def with_train(made, **settings):
    """The run with other settings of training in its record."""
    config = record_of(made)["config"]
    return made.__class__(**vars(made) | {"changes": {"config": config | {"train": config["train"] | settings}}})


def with_changes(made, **changes):
    return made.__class__(**vars(made) | {"changes": changes})


def test_settings_hold_all_seeds_in_the_order_of_series_and_compute(tmp_path):
    runs = [
        Made(series, "ladder", {"budget_mflop": compute}, compute, 0.5 + 0.01 * seed, seed, steps=50)
        for series in ("DLRM", "Wukong")
        for compute in (10.0, 2.0)
        for seed in (2, 0)
    ]
    found = study(tmp_path, runs, "ladder")
    assert found.series == ["Wukong", "DLRM"], "Wukong first, whatever the names"
    assert [(s.first.series, s.first.compute) for s in found.settings] == [
        ("Wukong", 2.0),
        ("Wukong", 10.0),
        ("DLRM", 2.0),
        ("DLRM", 10.0),
    ]
    for setting in found.settings:
        assert setting.by_seed == {0: 0.5, 2: 0.52}
        assert setting.logloss.mean == pytest.approx(0.51)
        assert setting.logloss.std == pytest.approx(statistics.stdev([0.5, 0.52]))
        assert setting.examples == 50 * BATCH
    assert found.floor == FLOOR


def test_runs_that_diverged_are_kept_apart(tmp_path):
    nan = with_changes(OTHER, results={"test": {"logloss": None, "auc": None}})
    lost = Made("DLRM", "ladder", {"budget_mflop": 9.0}, 9.0, None)
    found = study(tmp_path, [ONE, nan, lost], "ladder")
    assert [s.first.series for s in found.settings] == ["Wukong"]
    assert [(run.compute, run.reason) for run in found.lost] == [
        (2.0, "the LogLoss is not finite"),
        (9.0, "loss is nan at step 9"),
    ]


def test_a_note_of_a_run_that_finished_later_does_not_count(tmp_path):
    write_made(tmp_path, [ONE, Made(ONE.series, ONE.study, ONE.varied, ONE.compute, None)])
    assert [run.reason for run in read_runs(tmp_path)] == [""]


def test_one_seed_has_no_deviation(tmp_path):
    found = study(tmp_path, [ONE], "ladder")
    assert math.isnan(found.settings[0].logloss.std)
    assert cells(settings_table(found), "LogLoss") == ["0.50000"]


def test_a_study_without_a_logloss_is_none(tmp_path):
    runs = read_runs(write_made(tmp_path, [ONE, Made("Wukong", "data", {}, 1.0, None)]))
    assert study_of(runs, "data") is None
    assert study_of(runs, "knob") is None


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (with_changes(OTHER, store_digest="other data"), "store_digest"),
        (with_changes(OTHER, numerics_revision=0), "numerics_revision"),
        (with_train(OTHER, monitor="logloss"), "monitor"),
        (with_train(OTHER, epochs=7), "epochs"),
        (with_train(OTHER, plateau={"type": "PlateauConfig", "stop_after": 3}), "plateau"),
    ],
    ids=["data", "numerics", "monitor", "epochs", "plateau"],
)
def test_runs_on_other_terms_are_refused_within_a_study(tmp_path, other, named):
    with pytest.raises(DataError, match=f"'ladder' differ in {named}") as error:
        study(tmp_path, [ONE, other], "ladder")
    assert "wukong-ladder" in str(error.value).lower()
    assert "dlrm-ladder" in str(error.value).lower()


def test_a_diverged_run_that_comes_first_does_not_hide_other_data(tmp_path):
    first = Made("Wukong", "knob", {"rank": 4}, 0.5, None)
    two = [Made("Wukong", "knob", {"rank": rank}, float(rank), 0.5) for rank in (8, 16)]
    with pytest.raises(DataError, match="differ in store_digest"):
        study(tmp_path, [first, two[0], with_changes(two[1], store_digest="other data")], "knob")


@pytest.mark.parametrize("other", [with_train(OTHER, batch_size=64, max_steps=9), with_train(OTHER, seed=5)])
def test_batch_size_steps_and_seed_may_differ(tmp_path, other):
    assert len(study(tmp_path, [ONE, other], "ladder").settings) == 2


def test_what_is_varied_on_purpose_may_differ(tmp_path):
    epochs = [Made("Wukong", "data", {"epochs": count}, 1.0, 0.5, steps=100 * count) for count in (1, 3)]
    runs = [with_train(made, epochs=made.varied["epochs"]) for made in epochs]
    assert [s.examples for s in study(tmp_path, runs, "data").settings] == [100 * BATCH, 300 * BATCH]


def test_other_studies_may_be_of_other_data(tmp_path):
    other = Made("Wukong", "rates", {"learning_rate": 0.1}, 1.0, 0.5, changes={"store_digest": "other data"})
    runs = read_runs(write_made(tmp_path, [ONE, other]))
    assert study_of(runs, "ladder") is not None


def test_two_settings_at_one_size_of_a_ladder_are_refused(tmp_path):
    rate = Made("Wukong", "ladder", {"budget_mflop": 1.0, "learning_rate": 0.1}, 1.0, 0.4)
    with pytest.raises(DataError, match=r"two settings .* series 'Wukong' with 1 MFLOP/example"):
        study(tmp_path, [ONE, rate], "ladder")


@pytest.mark.parametrize("key", ["series", "study", "varied"])
def test_a_record_of_no_sweep_is_named(tmp_path, key):
    write_made(tmp_path, [with_changes(ONE, **{key: None})])
    with pytest.raises(DataError, match=rf"\.jsonl: {key} is None, expected the record of a sweep"):
        read_runs(tmp_path)


@pytest.mark.parametrize(
    ("runs", "folder", "metric", "error", "message"),
    [
        ([], "empty", "logloss", DataError, "no run record"),
        ([Made("Wukong", "ladder", {}, 1.0, None)], "lost", "logloss", DataError, "only 1 notes of runs that diverged"),
        ([], "nowhere", "logloss", DataError, "is no folder"),
        ([ONE], "ladder", "logloss/click", DataError, "no test metric 'logloss/click'.*auc, logloss"),
        ([ONE], "ladder", "auc", ConfigError, "--metric: received 'auc', expected logloss"),
    ],
    ids=["empty", "only lost", "no folder", "metric", "not a LogLoss"],
)
def test_folders_that_cannot_be_reported(tmp_path, runs, folder, metric, error, message):
    if folder != "nowhere":
        (tmp_path / folder).mkdir()
    write_made(tmp_path / folder, runs)
    with pytest.raises(error, match=message):
        read_runs(tmp_path / folder, metric)


def test_a_label_of_several_is_chosen(tmp_path):
    scores = {"logloss/click": 0.3, "auc/click": 0.8, "logloss/buy": 0.1, "auc/buy": 0.9}
    write_made(tmp_path, [with_changes(ONE, results={"test": scores}, best_possible={"test": {"logloss/buy": 0.05}})])
    (run,) = read_runs(tmp_path, "logloss/buy")
    assert (run.logloss, run.auc, run.floor) == (0.1, 0.9, 0.05)


def test_the_base_of_the_knobs_differs_from_each_in_one(tmp_path):
    (found,) = effects(study(tmp_path, knobs(), "knob"))
    assert found.base.first.varied == KNOB_BASE
    assert len(found.others) == len(KNOBS)
    for (name, value), (compute, percent) in KNOBS.items():
        value = list(value) if isinstance(value, tuple) else value
        (effect,) = [one for one in found.others if one.changed == {name: value}]
        assert effect.setting.first.compute == compute
        assert effect.change.mean == pytest.approx(percent), "paired: the base differs from seed to seed"
        assert effect.change.std == pytest.approx(0, abs=1e-10)
    assert [changed for changed, _ in found.lost] == [{"rank": 64}, {"rank": 64}]


def test_the_ablation_is_against_the_full_model(tmp_path):
    (found,) = effects(study(tmp_path, ablation(), "ablation"))
    names = {("use_fmb",): "no FMB", ("use_lcb",): "no LCB", ("residual",): "no residual"}
    names[("use_lcb", "residual")] = "no LCB and no residual"
    assert {effect.label for effect in found.others} == set(names.values())
    for parts, percent in ABLATION.items():
        (effect,) = [one for one in found.others if one.label == names[parts]]
        assert effect.change.mean == pytest.approx(percent + 0.05)
        assert effect.change.std == pytest.approx(0.05)


def test_the_full_model_is_known_by_its_config_where_few_variants_are_there(tmp_path):
    """Of full, no LCB and no LCB and no residual the second differs least from the others."""
    wanted = [(True, True, True), (True, False, True), (True, False, False)]
    kept = [made for made in ablation() if tuple(made.varied.values()) in wanted]
    (found,) = effects(study(tmp_path, kept, "ablation"))
    assert all(found.base.first.varied.values())
    assert {effect.label for effect in found.others} == {"no LCB", "no LCB and no residual"}


def test_without_the_full_model_there_is_no_base(tmp_path):
    kept = [made for made in ablation() if not made.varied["use_lcb"]]
    assert effects(study(tmp_path, kept, "ablation")) == ()


def test_a_diverged_seed_of_the_base_is_no_variant(tmp_path):
    full = {"use_fmb": True, "use_lcb": True, "residual": True}
    runs = [*ablation(), Made("Wukong", "ablation", full, 3.0, None, 3)]
    runs.append(Made("Wukong", "ablation", full | {"use_fmb": False}, 3.0, None, 3))
    (found,) = effects(study(tmp_path, runs, "ablation"))
    assert [label(changes) for changes, _ in found.lost] == ["no FMB"]


def test_knobs_of_models_that_all_lack_a_part_are_left_out(tmp_path):
    runs = [Made("Wukong", "knob", {"use_lcb": False, "rank": rank}, float(rank), 0.5) for rank in (8, 16)]
    section = make_report(write_made(tmp_path, runs)).section("knob")
    assert section.figure is None
    assert section.text[-1].startswith("Left out: no setting is a whole model")


def test_unpaired_seeds_compare_means_without_a_deviation(tmp_path):
    base = [Made("Wukong", "knob", {"rank": 8}, 1.0, value, seed) for seed, value in ((0, 0.4), (1, 0.6))]
    other = [Made("Wukong", "knob", {"rank": 16}, 2.0, 0.55, 7)]
    (found,) = effects(study(tmp_path, [*base, *other], "knob"))
    assert found.base.first.compute == 1.0, "of two settings that differ alike the cheaper is the base"
    assert found.others[0].change.mean == pytest.approx(10.0)
    assert math.isnan(found.others[0].change.std)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"residual": False, "use_lcb": False}, "no LCB and no residual"),
        ({"model.use_fmb": False}, "no FMB"),
        ({"use_fmb": True}, "use_fmb true"),
        ({"fm": "full", "rank": 4}, "fm full and rank 4"),
        ({"widths": [64, 64, 64]}, "widths 3 × 64"),
        ({"widths": [64, 32]}, "widths [64, 32]"),
        ({"widths": [64]}, "widths 64"),
        ({}, "as the base"),
    ],
)
def test_changes_in_words(changes, text):
    assert label(changes) == text


def test_values_as_they_are_shown():
    assert [shown_value(value) for value in (3, 0.5, None, "full", [])] == ["3", "0.5", "null", "full", "[]"]


def test_stability_and_collapse_are_shown_where_recorded(tmp_path):
    spikes = [{"step": 3, "loss": 1.0, "typical": 0.5}]
    tables = {
        "deep": {"information_abundance": 2.0, "rows": 100, "width": 8},  # 0.25 of the most there can be
        "few": {"information_abundance": 1.5, "rows": 2, "width": 8},  # 0.75
        "bias": {"information_abundance": 1.0, "rows": 100, "width": 1},  # cannot collapse
        "zeros": {"information_abundance": None, "rows": 100, "width": 8},
    }
    first = with_changes(ONE, loss_spikes=spikes * 2, information_abundance=tables)
    second = Made("Wukong", "ladder", ONE.varied, 1.0, 0.5, 1, changes={"loss_spikes": spikes})
    found = study(tmp_path, [first, second, OTHER], "ladder")
    assert cells(settings_table(found), "loss spikes") == ["3", "-"], "DLRM's record has none"
    assert cells(settings_table(found), "abundance") == ["0.500", "-"]


def test_without_them_there_are_no_such_columns(tmp_path):
    assert not {"loss spikes", "abundance"} & set(settings_table(study(tmp_path, [ONE], "ladder")).headings)


def test_totals_and_runs(tmp_path):
    lost = Made("DLRM", "ladder", {}, 9.0, None)
    slow = with_changes(OTHER, device="TPU v9", wall_seconds=3600.0)
    runs = read_runs(write_made(tmp_path, [ONE, slow, lost]))
    totals = dict(totals_table(runs).rows)
    assert totals["training compute of the runs that finished, PFLOP"] == f"{(1e6 + 2e6) * 100 * BATCH / 1e15:.4g}"
    assert totals["runs that finished"] == "2"
    assert totals["runs that diverged or have no LogLoss"] == "1"
    assert totals["their wall time, training and evaluation, hours"] == f"{(3600 + 12.5) / 3600:.4g}"
    assert totals["devices"] == "TPU v9, cpu"
    table = runs_table(runs)
    assert cells(table, "wall time, s") == ["12.5", "3,600.0"]
    assert cells(table, "LogLoss") == ["0.50000", "0.60000"]
