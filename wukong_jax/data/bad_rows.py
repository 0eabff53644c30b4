"""The file of rows that `prepare` set aside: file, line, reason, text, separated by tabs."""

import pathlib
from collections.abc import Sequence
from typing import IO, Any

from wukong_jax.data.readers.chunk import BadRow
from wukong_jax.errors import DataError


class BadRowFile:
    """Collects bad rows under a temporary name; `publish` puts the file in place, or removes an outdated one."""

    def __init__(self, out: pathlib.Path):
        self.count = 0
        self.path = out.with_name(f"{out.name}.bad_rows.tsv")
        self._partial = out.with_name(f"{out.name}.bad_rows.tsv.partial")
        self._file: IO[str] | None = None

    def __enter__(self) -> "BadRowFile":
        """Nothing is written before the first bad row."""
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Remove what was not published."""
        if self._file is not None:
            try:
                self._file.close()
            finally:
                self._partial.unlink(missing_ok=True)

    def add(self, rows: Sequence[BadRow]) -> None:
        """Append rows; line ends inside the text are written as a backslash and a letter."""
        for row in rows:
            text = row.text.replace("\r", "\\r").replace("\n", "\\n")
            self._write(f"{row.file}\t{row.line}\t{row.reason}\t{text}\n")

    def join(self, published: pathlib.Path) -> None:
        """Append the rows of such a file that was published elsewhere; raises `DataError`."""
        try:
            with published.open(encoding="utf-8", newline="\n") as lines:
                next(lines)
                for line in lines:
                    self._write(line)
        except OSError as error:
            raise DataError(f"{published} cannot be read: {error.strerror}") from error

    def _write(self, line: str) -> None:
        try:
            if self._file is None:
                self._file = self._partial.open("w", encoding="utf-8", newline="\n")
                self._file.write("file\tline\treason\ttext\n")
            self._file.write(line)
        except OSError as error:
            raise DataError(f"{self._partial} cannot be written: {error.strerror}") from error
        self.count += 1

    def check_some_are_good(self, rows: int) -> None:
        """Where no row is left, publish the bad ones and raise `DataError`."""
        if not rows:
            self.publish()
            raise DataError(f"no row could be used: all {self.count} are bad, see {self.path}")

    def publish(self) -> None:
        """Rename the file to its final name; without bad rows, remove the one of an earlier run."""
        try:
            if self._file is None:
                self.path.unlink(missing_ok=True)
            else:
                self._file.close()
                self._file = None
                self._partial.replace(self.path)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}") from error
