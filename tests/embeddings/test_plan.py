import pytest

from wukong_jax.config.optimizer import TableRule, TablesConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature
from wukong_jax.embeddings.plan import MAX_ROWS, Lookup, plan_embeddings
from wukong_jax.embeddings.specs import FeatureSpec, TableSpec, TableSpecs
from wukong_jax.errors import ConfigError

SCHEMA = DatasetSchema(
    (CategoricalFeature("a", 10), CategoricalFeature("b", 20)),
    (MultiHotFeature("m", 5, 3, "mean"), MultiHotFeature("s", 7, 2)),
)
ADAM = TableRule(update="dense", name="adam")


def specs(*tables: tuple[str, int, int], lookups: dict[str, str] | None = None) -> TableSpecs:
    pairs = lookups or {name: name for name, _, _ in tables}
    return TableSpecs(
        tuple(TableSpec(name, rows, width, 0.1) for name, rows, width in tables),
        tuple(FeatureSpec(feature, table) for feature, table in pairs.items()),
    )


def test_tables_of_one_width_and_rule_are_stacked_in_order():
    plan = plan_embeddings(SCHEMA, specs(("a", 10, 4), ("b", 20, 8), ("m", 5, 4), ("s", 7, 4)), TablesConfig())
    four, eight = plan.stacks
    assert (four.name, four.width, four.rows, four.offsets) == ("width4_row_sparse_rowwise_adagrad", 4, 22, (0, 10, 15))
    assert [table.name for table in four.tables] == ["a", "m", "s"]
    assert four.lookups == (
        Lookup("a", "a", four.name, (0,), 0, 0, None),
        Lookup("m", "m", four.name, (2, 3, 4), 1, 10, "mean"),
        Lookup("s", "s", four.name, (5, 6), 4, 15, "sum"),
    )
    assert (four.slots, eight.slots) == (6, 1)
    assert eight.lookups == (Lookup("b", "b", eight.name, (1,), 0, 0, None),)
    assert plan.lookup("s", "s").row_offset == 15
    assert plan.table_rows("m") == (four, 10, 5)
    assert plan.row_sparse == plan.stacks
    assert plan.dense == ()
    assert hash(plan) == hash(
        plan_embeddings(SCHEMA, specs(("a", 10, 4), ("b", 20, 8), ("m", 5, 4), ("s", 7, 4)), TablesConfig())
    )


def test_the_first_matching_rule_counts():
    rules = (TableRule("^b$", name="sgd"), TableRule(max_rows=10, update="dense", name="adam"), TableRule())
    plan = plan_embeddings(SCHEMA, specs(("a", 10, 4), ("b", 9, 4), ("m", 11, 4)), TablesConfig(rules))
    assert {table.name: stack.rule for stack in plan.stacks for table in stack.tables} == {
        "a": rules[1],
        "b": rules[0],
        "m": rules[2],
    }
    assert [stack.name for stack in plan.dense] == ["width4_dense_adam"]
    assert len(plan.row_sparse) == 2


def test_stacks_of_like_rules_get_names_of_their_own():
    rules = (TableRule("a", learning_rate=0.1), TableRule("b", learning_rate=0.2), TableRule())
    plan = plan_embeddings(SCHEMA, specs(("a", 10, 4), ("b", 20, 4), ("m", 5, 4)), TablesConfig(rules))
    assert len({stack.name for stack in plan.stacks}) == 3


def test_a_feature_may_read_two_tables_and_two_features_one_table():
    both = TableSpecs(
        (TableSpec("a", 20, 4, 0.1), TableSpec("a:weight", 10, 1, 0.1)),
        (FeatureSpec("a", "a"), FeatureSpec("b", "a"), FeatureSpec("a", "a:weight")),
    )
    plan = plan_embeddings(SCHEMA, both, TablesConfig())
    assert plan.lookup("a", "a").stack != plan.lookup("a", "a:weight").stack
    assert plan.lookup("b", "a").row_offset == plan.lookup("a", "a").row_offset == 0
    assert (plan.lookup("a", "a").first_slot, plan.lookup("b", "a").first_slot) == (0, 1)
    with pytest.raises(KeyError):
        plan.lookup("b", "a:weight")
    with pytest.raises(KeyError):
        plan.table_rows("b")


@pytest.mark.parametrize(
    ("wanted", "config", "message"),
    [
        (specs(("a", 10, 4)), TablesConfig((TableRule("b"),)), r"no rule matches table 'a' \(10 rows\); end the rules"),
        (specs(("a", 10, 4)), TablesConfig((TableRule(max_rows=9),)), r"no rule matches table 'a' \(10 rows\)"),
        (specs(("z", 10, 4)), TablesConfig(), r"unknown feature 'z'; the schema has \['a', 'b', 'm', 's'\]"),
        (specs(("a", 10, 4), lookups={"a": "c"}), TablesConfig(), r"lookups of the tables \['c'\]"),
        (specs(("a", 10, 4), ("a", 5, 4)), TablesConfig(), r"\['a'\] named more than once"),
        (specs(("a", MAX_ROWS, 4), ("b", 1, 4)), TablesConfig(), f"{MAX_ROWS + 1} rows, above the {MAX_ROWS}"),
    ],
)
def test_what_cannot_be_planned_is_refused(wanted, config, message):
    with pytest.raises(ConfigError, match=message):
        plan_embeddings(SCHEMA, wanted, config)


def test_a_stack_may_fill_the_ids():
    assert plan_embeddings(SCHEMA, specs(("a", MAX_ROWS, 4)), TablesConfig((ADAM,))).stacks[0].rows == MAX_ROWS
