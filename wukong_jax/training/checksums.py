"""SHA-256 of every file of a checkpoint, written before it is committed: Orbax does not notice every altered byte."""

import hashlib
import json
import pathlib

SUMS_FILE = "sha256.json"
OWN_METADATA = "_CHECKPOINT_METADATA"  # Orbax writes it again while it commits, and restores without it


def write_checksums(folder: pathlib.Path) -> None:
    """Put the checksums of all files of a checkpoint's folder into it."""
    sums = {name: _digest(folder / name) for name in _files(folder)}
    (folder / SUMS_FILE).write_text(json.dumps(sums, indent=1))


def find_damage(folder: pathlib.Path) -> str | None:
    """What is wrong with the files of a checkpoint's folder, or None if all are as they were written."""
    try:
        sums = json.loads((folder / SUMS_FILE).read_text())
    except (OSError, ValueError) as error:
        return f"{SUMS_FILE} cannot be read: {error}"
    missing = sorted(sums.keys() - _files(folder))
    if missing:
        return f"{missing[0]} is missing"
    altered = [name for name, digest in sums.items() if _digest(folder / name) != digest]
    return f"{altered[0]} was altered" if altered else None


def _files(folder: pathlib.Path) -> set[str]:
    """Files that are checked, relative to the folder."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return found - {SUMS_FILE, OWN_METADATA}


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
