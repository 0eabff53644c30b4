"""`python -m wukong_jax prepare`: from a CSV of one's own to a store and a configuration, by options alone."""

import importlib.util
import pathlib
import re
import sys

import pytest

from wukong_jax.commands.config_source import schema_source
from wukong_jax.commands.prepare import PrepareOptions, main, source_of, spec_of
from wukong_jax.config.run import DataConfig
from wukong_jax.data.obtain_store import store_path
from wukong_jax.data.recipes import load_recipe
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature, NumericFeature, VectorFeature
from wukong_jax.data.spec import (
    CategoricalColumn,
    FileSplit,
    FractionSplit,
    GroupTimeSplit,
    MultiHotColumn,
    NumericColumn,
    TimeSplit,
    VectorColumn,
)
from wukong_jax.data.store import open_store
from wukong_jax.errors import ConfigError, UserError

OUT = pathlib.Path("out")


@pytest.fixture
def raw(tmp_path: pathlib.Path) -> pathlib.Path:
    lines = ["clicked,user,item,shop,tags,price,image,count,when"]
    lines += [f"{i % 2},u{i % 9},i{i % 31},s{i % 7},a|b|c,{i}.5,1;2,{i},{i}" for i in range(200)]
    (tmp_path / "clicks.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "clicks.csv"


def options(raw: pathlib.Path) -> list[str]:
    text = f"--files {raw} --out {raw.parent / 'store'} --label clicked --categorical user item:6 --hashed shop:50"
    text += " --bucketed count --multi-hot tags:2:mean --numeric price:standardise:missing --vectors image:2"
    text += " --group user --time when --split group-time --valid-share 0.1 --test-share 0.2"
    return text.split()


def test_a_csv_becomes_a_store_and_a_config(raw: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = raw.parent / "configs" / "clicks.py"
    assert main([*options(raw), "--write-config", str(config)]) == 0
    store = open_store(raw.parent / "store")
    assert [feature.name for feature in store.schema.id_features] == ["user", "item", "shop", "count", "tags"]
    assert sum(split.rows for split in store.splits.values()) == 200
    said = capsys.readouterr().out
    for part in (
        "rows: 200 (train",
        "9 of 9 values kept",
        "7 values in",
        "of 50 buckets",
        "200 values beyond the maximum",
    ):
        assert part in said
    spec = importlib.util.spec_from_file_location("clicks", config)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run = module.get_config()
    assert run.schema == store.schema
    assert run.data.store == str(raw.parent / "store")


def test_bad_rows_are_reported(raw: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw.write_text(raw.read_text() + "1,u\n")
    with pytest.raises(UserError, match="line 202: 2 columns, expected 9"):
        main(options(raw))
    assert main([*options(raw), "--on-bad-rows", "skip"]) == 0
    assert f"bad rows: 1, put aside in {raw.parent / 'store'}.bad_rows.tsv" in capsys.readouterr().out


def test_a_typo_exits_with_2(raw: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*options(raw), "--catgorical", "x"])
    assert caught.value.code == 2
    assert "--categorical" in capsys.readouterr().err


def test_options_become_a_specification() -> None:
    spec = spec_of(
        PrepareOptions(
            OUT,
            files=("x",),
            categorical=("a", "b:7"),
            hashed=("c:10",),
            bucketed=("d:2",),
            multi_hot=("e:3", "f:4:mean"),
            numeric=("g", "h:min_max", "i:missing", "j:signed_log1p:missing"),
            vectors=("k:5",),
            item_separator=" ",
            min_count=3,
        )
    )
    assert spec.categorical == (
        CategoricalColumn("a", 3),
        CategoricalColumn("b", 7),
        CategoricalColumn("c", hash_buckets=10),
        CategoricalColumn("d", 2, bucketing="log2_square"),
    )
    assert spec.multi_hot == (MultiHotColumn("e", 3, " ", "sum", 3), MultiHotColumn("f", 4, " ", "mean", 3))
    assert spec.numeric == (
        NumericColumn("g"),
        NumericColumn("h", "min_max"),
        NumericColumn("i", "none", True),
        NumericColumn("j", "signed_log1p", True),
    )
    assert spec.vectors == (VectorColumn("k", 5),)


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"files": ("x",)}, FractionSplit()),
        ({"files": ("x",), "valid_share": 0.2, "test_share": 0.0, "seed": 4}, FractionSplit(0.2, 0.0, 4)),
        ({"train": ("x",)}, FileSplit()),
        ({"files": ("x",), "split": "group-time"}, GroupTimeSplit()),
        ({"files": ("x",), "split": "time", "valid_from": 5, "test_from": 9}, TimeSplit(5, 9)),
    ],
)
def test_split_rules(given: dict[str, object], rule: object) -> None:
    assert spec_of(PrepareOptions(OUT, categorical=("a",), **given)).split == rule


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"categorical": ("a",)}, "name the raw files"),
        ({"categorical": ("a",), "files": ("x",), "train": ("y",)}, "name the raw files"),
        ({"files": ("x",)}, "no feature column is named"),
        ({"files": ("x",), "categorical": ("a:b",)}, r"--categorical: received 'a:b', expected NAME\[:NUMBER\]"),
        ({"files": ("x",), "hashed": ("a",)}, "--hashed: received 'a', expected NAME:NUMBER"),
        ({"files": ("x",), "multi_hot": ("a:max",)}, "--multi-hot: received 'a:max', expected NAME:NUMBER"),
        ({"files": ("x",), "vectors": ("a",)}, "--vectors: received 'a', expected NAME:NUMBER"),
        ({"files": ("x",), "numeric": ("a:log",)}, r"--numeric: received 'a:log', expected NAME\[:TRANSFORM\]"),
        ({"files": ("x",), "categorical": ("a",), "split": "time"}, "--valid-from and --test-from"),
        ({"files": ("x",), "categorical": ("a",), "split": "files"}, "give the other"),
        ({"train": ("x",), "categorical": ("a",), "split": "fraction"}, "give the other"),
        ({"files": ("x",), "format": "libfm"}, "name the fields after the label"),
    ],
)
def test_options_that_do_not_fit(given: dict[str, object], message: str) -> None:
    def run() -> None:
        options = PrepareOptions(OUT, **given)
        spec_of(options)
        source_of(options)

    with pytest.raises(ConfigError, match=message):
        run()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--valid-from 5 --test-from 9", "--valid-from: only read with --split time, received no --split"),
        ("--split time --valid-from 5 --test-from 9 --seed 1", "--seed: only read with --split fraction"),
        ("--format criteo --separator ;", "--separator: only read with --format csv or --format tsv"),
        ("--format parquet --columns a b", "--columns: only read with --format csv"),
        ("--format libfm --columns a b --label x y", "--label: a libfm file has one label"),
        ("--workers 2", "--workers: only read with --engine ray, received --engine local"),
        ("--engine local --ray-address auto", "--ray-address: only read with --engine ray"),
    ],
)
def test_options_without_effect_are_refused(raw: pathlib.Path, given: str, message: str) -> None:
    text = f"--files {raw} --out {raw.parent / 'store'} --categorical user --time when {given}"
    with pytest.raises(ConfigError, match=re.escape(message)):
        main(text.split())
    assert not (raw.parent / "store").exists()


def test_the_ray_engine_without_ray(raw: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--engine ray: Ray is not installed .*`pip install ray`"):
        main([*options(raw), "--engine", "ray"])
    assert [entry.name for entry in raw.parent.iterdir()] == ["clicks.csv"]


def test_a_config_that_is_there_is_not_overwritten(raw: pathlib.Path) -> None:
    mine = raw.parent / "mine.py"
    mine.write_text("# my own")
    with pytest.raises(ConfigError, match=r"mine.py exists"):
        main([*options(raw), "--write-config", str(mine)])
    assert mine.read_text() == "# my own"
    assert not (raw.parent / "store").exists()


def test_a_recipe_is_prepared_where_training_looks_for_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / "train.txt").write_text(("\t".join(["1", *["3"] * 13, *["ab"] * 26]) + "\n") * 200)
    given = ["--recipe", "criteo_kaggle", "--source", str(tmp_path / "train.txt"), "--root", str(tmp_path)]
    assert main(given) == 0
    schema = load_recipe("criteo_kaggle").SCHEMA
    store = open_store(store_path(DataConfig(recipe="criteo_kaggle", root=str(tmp_path)), schema))
    assert store.schema == schema
    assert sum(split.rows for split in store.splits.values()) == 200


def test_criteo_and_libfm_need_no_features() -> None:
    criteo = spec_of(PrepareOptions(OUT, files=("x",), format="criteo", min_count=10))
    assert (len(criteo.numeric), len(criteo.categorical)) == (13, 26)
    assert {column.min_count for column in criteo.categorical} == {10}
    libfm = spec_of(PrepareOptions(OUT, files=("x",), format="libfm", columns=("user", "item")))
    assert [column.name for column in libfm.categorical] == ["user", "item"]


def test_tsv_without_header_and_quotes(tmp_path: pathlib.Path) -> None:
    (tmp_path / "rows").write_text('1\t5" nail\n0\t"\n')
    main(f"--files {tmp_path / 'rows'} --format tsv --columns label item --categorical item --valid-share 0 "
         f"--test-share 0 --out {tmp_path / 'store'}".split())  # fmt: skip
    assert open_store(tmp_path / "store").split("train").columns["ids"].shape == (2, 1)


@pytest.mark.parametrize("name", ["user", 'a "quoted" name', "it's", "back\\slash", "Größe"])
def test_the_source_of_a_schema_gives_it_back(name: str) -> None:
    schema = DatasetSchema(
        categorical=(CategoricalFeature(name, 3),),
        multi_hot=(MultiHotFeature("tags", 5, 2, "mean"),),
        numeric=(NumericFeature("x"), NumericFeature("y")),
        vectors=(VectorFeature("v", 2),),
        labels=("click", "buy"),
        group=name,
    )
    names = {"DatasetSchema": DatasetSchema, "CategoricalFeature": CategoricalFeature, "VectorFeature": VectorFeature}
    names |= {"MultiHotFeature": MultiHotFeature, "NumericFeature": NumericFeature}
    assert eval(schema_source(schema), names) == schema
    assert "weight" not in schema_source(schema)
