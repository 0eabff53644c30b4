"""Frappe, context-aware app usage: 288,609 rows, 10 categorical fields, one third positive, given in three files.

Accepted in a local folder, plain or gzipped: the libFM files of Xiangnan He (`frappe.train.libfm`,
`frappe.validation.libfm`, `frappe.test.libfm`) or BARS' Frappe_x1 (`train.csv`, `valid.csv`, `test.csv`), which hold
the same rows. In place of the original train file, one with rebuilt negatives (`frappe.train.rebuilt.libfm`) is taken
too: same rows, but another draw of the negatives' items (`benchmarks/redraw_frappe.py` makes more of them). Which one
it was stands in the store: call results on such a file "Frappe, rebuilt train negatives".
"""

import hashlib
import pathlib
import re
from typing import TYPE_CHECKING

from wukong_jax.data.obtain import find_file, need_source, origin_of, read_file, show_terms
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema
from wukong_jax.data.spec import CategoricalColumn, FileSplit, IngestSpec
from wukong_jax.errors import DataError

if TYPE_CHECKING:
    from wukong_jax.data.store import Store

NAME = "frappe"
TERMS = (
    "Frappe (Baltrunas et al., 2015): for research only; acknowledge the use; no attempt to identify users; "
    "no redistribution without separate permission; no commercial use."
)
SIZES = {
    "user": 955, "item": 4083, "daytime": 8, "weekday": 8, "isweekend": 3,
    "homework": 4, "cost": 3, "weather": 10, "country": 81, "city": 234,
}  # fmt: skip
SPEC = IngestSpec(categorical=tuple(CategoricalColumn(name) for name in SIZES), split=FileSplit())
SCHEMA = DatasetSchema(categorical=tuple(CategoricalFeature(name, size) for name, size in SIZES.items()))
LIBFM = {
    "train": ("frappe.train.libfm", "frappe.train.rebuilt.libfm"),
    "valid": ("frappe.validation.libfm",),
    "test": ("frappe.test.libfm",),
}
CSV = {"train": ("train.csv",), "valid": ("valid.csv",), "test": ("test.csv",)}
# MD5 of each split written as Frappe_x1's CSV (as reczoo/Datasets publishes them), the same for all forms of the file.
ORIGINAL_TRAIN = "ba7306e6c4fc19dd2cd84f2f0596d158"
REBUILT_TRAIN = "27bd6cb6ecd110e51c4faa012b6a717a"
HELD_OUT = {"valid": "88d51bf2173505436d3a8f78f2a59da8", "test": "3470f6d32713dc5f7715f198ca7c612a"}
TRAIN_FILES = {ORIGINAL_TRAIN: "original (Frappe_x1)", REBUILT_TRAIN: "rebuilt train negatives"}
# MD5 of the train rows in sorted order, without the negatives' items: what every draw of them has in common.
ANY_DRAW = "74a403abfb2d239021f2751baa1bc8ec"


def prepare(out: pathlib.Path, *, source: pathlib.Path | None, cache: pathlib.Path) -> "Store":
    """Prepare a local folder; raises `DataError` if a file is missing or is not the published one."""
    from wukong_jax.data.ingest import ingest
    from wukong_jax.data.sources import csv_source, libfm_source

    folder = need_source(
        NAME, source, f"a folder with {', '.join(names[0] for names in LIBFM.values())} (plain or .gz)"
    )
    show_terms(NAME, TERMS, cache)
    in_csv = any((folder / name).is_file() for name in ("train.csv", "train.csv.gz"))
    files = {split: find_file(folder, names) for split, names in (CSV if in_csv else LIBFM).items()}
    train_file = check(files)
    lists = {split: [path] for split, path in files.items()}
    read = csv_source(lists) if in_csv else libfm_source(lists, fields=list(SIZES))
    print(f"Frappe: the train file is {train_file}")
    return ingest(read, SPEC, out, origin=origin_of(NAME, folder, train_file=train_file, terms=TERMS))


def check(files: dict[str, pathlib.Path]) -> str:
    """Which train file this is, by its checksum; raises `DataError` if it, validation or test is an unknown one."""
    for split, md5 in HELD_OUT.items():
        found = csv_md5(read_file(files[split]))
        if found != md5:
            raise DataError(f"{files[split]}: MD5 as Frappe_x1 CSV {found}, expected {md5}; obtain the file again")
    content = read_file(files["train"])
    found = csv_md5(content)
    if found in TRAIN_FILES:
        return TRAIN_FILES[found]
    if draw_md5(content) == ANY_DRAW:
        return f"rebuilt train negatives, drawn again (MD5 {found})"
    known = ", ".join(f"{md5} ({name})" for md5, name in TRAIN_FILES.items())
    raise DataError(
        f"{files['train']}: MD5 as Frappe_x1 CSV {found}, expected one of {known}, or another draw of the negatives' "
        "items; obtain the file again"
    )


def csv_md5(content: bytes) -> str:
    """MD5 of the rows written as Frappe_x1's CSV: header, labels 0 and 1, CRLF line ends."""
    return hashlib.md5(as_csv(content), usedforsecurity=False).hexdigest()


def draw_md5(content: bytes) -> str:
    """MD5 of the rows in sorted order, the items of negatives left out."""
    rows = [line.split(b",") for line in as_csv(content).split(b"\r\n")[1:] if line]
    kept = sorted(b",".join(row[:2] + row[3:] if row[0] == b"0" else row) for row in rows)
    return hashlib.md5(b"\n".join(kept), usedforsecurity=False).hexdigest()


def as_csv(content: bytes) -> bytes:
    """The rows as Frappe_x1's CSV, from that or from libFM lines."""
    if not content.startswith(b"label,"):
        rows = content.replace(b"\r\n", b"\n").replace(b":1 ", b",").replace(b":1\n", b"\n")
        rows = re.sub(rb"(?m)^(-?)1 ", lambda match: b"0," if match[1] else b"1,", rows)
        content = (",".join(("label", *SIZES)).encode() + b"\n" + rows).replace(b"\n", b"\r\n")
    return content
