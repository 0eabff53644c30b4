"""Files written whole or not at all."""

import contextlib
import pathlib
import secrets
from collections.abc import Iterator

from wukong_jax.errors import DataError


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary name to write to, renamed to `path` when the block ends well; raises `DataError` if it cannot be.

    with whole_file(pathlib.Path("record.json")) as partial:
        partial.write_text("{}")
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")  # two processes may write one file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}); free space, or choose a folder that can be written"
        ) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text file whole or not at all; raises `DataError`."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
