"""python -m wukong_jax data-report: tables, JSON, and answers to bad options and bad files."""

import json

import pytest

from wukong_jax.commands.data_report import main
from wukong_jax.errors import ConfigError, DataError

EVENTS = [(user, (user + 3 * step) % 7, 100 - step) for user in range(8) for step in range(12)]


@pytest.fixture
def events(tmp_path):
    path = tmp_path / "log.csv"
    rows = [f"{user},{item},{time}" for user, item, time in [*EVENTS, EVENTS[0]]]
    path.write_text("\n".join(["visitor,product,at", *rows]) + "\n")
    return path


def columns(path):
    return ["--events", str(path), "--user", "visitor", "--item", "product", "--time", "at"]


def test_own_events_are_measured_and_written(events, tmp_path, capsys):
    out = tmp_path / "report.json"
    assert main([*columns(events), "--m", "1", "2", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "1 duplicate rows dropped, 88 rows earlier than the user's row before" in printed
    assert "approximate entropy" in printed
    report = json.loads(out.read_text())
    assert (report["duplicates"], report["out_of_order"]) == (1, 88)
    assert report["size"]["users"] == 8
    assert report["size"]["interactions"] == 96
    assert [entropy["m"] for entropy in report["entropies"]] == [1, 2]
    assert report["d_real"] == pytest.approx(96 / report["real_entropy"])
    assert report["options"]["user"] == "visitor"


def test_what_is_undefined_is_null_in_json_and_said_on_the_terminal(tmp_path, capsys):
    (tmp_path / "one.csv").write_text("user,item,time\n1,2,3\n")
    assert main(["--events", str(tmp_path / "one.csv"), "--json", str(tmp_path / "one.json")]) == 0
    report = json.loads((tmp_path / "one.json").read_text())
    assert report["d_real"] is None
    assert report["entropies"][0]["pooled"] is None
    printed = capsys.readouterr().out
    assert "undefined" in printed
    assert "nan" not in printed
    assert "warning: 1 users have one event" in printed


def test_only_the_last_items_are_measured(events, tmp_path):
    for last in (5, 100):
        out = tmp_path / f"{last}.json"
        assert main([*columns(events), "--last", str(last), "--json", str(out)]) == 0
        assert json.loads(out.read_text())["size"]["mean_length"] == min(last, 12)


def test_a_policy_changes_the_data_term(tmp_path):
    path, found = tmp_path / "data.txt", {}
    path.write_text("1 5 6 7 8 9\n2 5 6 5 6 7 7 5\n")
    for policy in ("absolute", "signed", "positive"):
        out = tmp_path / f"{policy}.json"
        options = ["--events", str(path), "--format", "lists", "--m", "1", "--policy", policy, "--json", str(out)]
        assert main(options) == 0
        found[policy] = json.loads(out.read_text())["entropies"][0]["d_users"]
    assert found["signed"] < found["positive"] < found["absolute"]
    assert found["signed"] + found["absolute"] == pytest.approx(2 * found["positive"])


def test_a_public_data_set_of_a_local_folder(shared_data, tmp_path, capsys):
    out = tmp_path / "report.json"
    options = ["--data", "movielens_100k", "--source", str(shared_data / "ml-100k"), "--root", str(tmp_path)]
    assert main([*options, "--last", "200", "--m", "1", "2", "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["size"]["interactions"] == 85_678
    assert report["real_entropy"] == pytest.approx(5.1120, abs=5e-5)
    assert [entropy["pooled"] for entropy in report["entropies"]] == pytest.approx([4.222, 0.4036], abs=5e-4)
    assert "warning: repeat-free: no user has an item twice" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--data, --events: give one of them"),
        (["--data", "lastfm", "--events", "e.csv"], "--data, --events: give one of them"),
        (["--events", "e.csv", "--json", "."], "--json: . is a folder, expected the name of a JSON file"),
        (["--data", "lastfm", "--user", "visitor"], "--user: is of a file given with --events"),
        (["--data", "lastfm", "--format", "csv"], "--format: is of a file given with --events"),
        (["--events", "e.csv", "--source", "x"], "--source: is of a public data set given with --data"),
        (["--events", "e.txt", "--format", "lists", "--item", "x"], "--item: a file of lists has no named columns"),
        (["--events", "e.csv", "--last", "0"], "--last: received 0, expected 1 or more"),
        (["--events", "e.csv", "--m", "0"], "--m: received 0, expected windows of 1 item or more"),
        (["--events", "e.csv", "--m", "2", "2"], "--m: .'2'. named more than once"),
        (["--events", "e.csv", "--m"], "--m: received no window length"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        main(options)


def test_bad_files_are_refused(events, tmp_path):
    with pytest.raises(DataError, match=r"no column 'user' .the user.; its columns are visitor, product, at"):
        main(["--events", str(events)])
    with pytest.raises(DataError, match=r"missing\.csv: no such file"):
        main(["--events", str(tmp_path / "missing.csv")])
    with pytest.raises(DataError, match=r"lastfm: .*give as the source"):
        main(["--data", "lastfm"])


def test_an_unknown_option_exits_with_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--evnts", "e.csv"])
    assert stopped.value.code == 2
    assert "--events" in capsys.readouterr().err
