import gzip
from collections import Counter

import pytest

from benchmarks.redraw_frappe import read_rows, redraw
from wukong_jax.data.obtain import find_file
from wukong_jax.data.recipes import frappe
from wukong_jax.errors import DataError


def test_only_the_negatives_items_are_drawn_anew_none_of_them_seen_by_the_user():
    held_out = [("1", "u", "a", "c1"), ("-1", "u", "b", "c1"), ("-1", "v", "d", "c2")]
    train = [("1", "u", "c", "c1"), ("-1", "u", "e", "c1"), ("-1", "u", "f", "c2"), ("1", "v", "f", "c1")]
    draws = [redraw(train, held_out, seed) for seed in range(20)]
    for rows in draws:
        assert sorted(row for row in rows if row[0] == "1") == sorted(row for row in train if row[0] == "1")
        negatives = [row for row in rows if row[0] == "-1"]
        assert Counter((user, context) for _, user, _, context in negatives) == {("u", "c1"): 1, ("u", "c2"): 1}
        items = [item for _, _, item, _ in negatives]
        assert len(set(items)) == 2  # without replacement
        assert set(items) <= {"d", "e", "f"}
    assert len({tuple(sorted(rows)) for rows in draws}) == 6  # d, e, f in two places, ordered


@pytest.mark.slow
def test_another_draw_is_accepted_for_what_it_is_and_another_file_is_not(tmp_path, shared_data):
    files = {split: find_file(shared_data / "frappe", names) for split, names in frappe.LIBFM.items()}
    train = tmp_path / "frappe.train.rebuilt.libfm.gz"

    def check(rows):
        train.write_bytes(gzip.compress("".join(f"{' '.join(row)}\n" for row in rows).encode(), 1))
        return frappe.check(files | {"train": train})

    drawn = redraw(read_rows(files["train"]), read_rows(files["valid"]) + read_rows(files["test"]), 1)
    assert check(drawn).startswith("rebuilt train negatives, drawn again (MD5 ")
    with pytest.raises(DataError, match="another draw of the negatives' items; obtain the file again"):
        check(drawn[1:])
    label, user, item, *context = drawn[0]
    with pytest.raises(DataError, match="another draw"):
        check([(label, user, item, "5041:1" if context[0] != "5041:1" else "5042:1", *context[1:]), *drawn[1:]])
