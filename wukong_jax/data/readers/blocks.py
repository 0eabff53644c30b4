"""Files as blocks of whole lines: plain, gzip or Zstandard, in bounded memory, with line numbers."""

import glob
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

from wukong_jax.errors import DataError

BLOCK_BYTES = 16 << 20
MAX_RECORD_BLOCKS = 4
SPLITS = ("train", "valid", "test")
BOM = b"\xef\xbb\xbf"

PACKED = (".gz", ".zst")

Files = Mapping[str, Sequence[str | pathlib.Path]]


class Block(NamedTuple):
    """Whole lines of a file, the first of which is line `first_line`."""

    data: bytes
    first_line: int


class Span(NamedTuple):
    """Bytes `start` to `stop` of a file, both at ends of blocks of `block_bytes`; the first is on line `first_line`."""

    start: int
    stop: int
    first_line: int
    block_bytes: int


def resolve_files(files: Files) -> list[tuple[str | None, pathlib.Path]]:
    """(split, file) in reading order, split None for the key "all"; globs in name order; raises `DataError`."""
    if set(files) != {"all"} and not (set(files) <= set(SPLITS) and "train" in files):
        raise DataError(f"files are given for {sorted(files)}; expected one list, or lists for train, valid and test")
    found: list[tuple[str | None, pathlib.Path]] = []
    for name in ("all", *SPLITS):
        for pattern in files.get(name, ()):
            found += [(None if name == "all" else name, path) for path in _expand(str(pattern))]
        if name in files and not any(split == (None if name == "all" else name) for split, _ in found):
            raise DataError(f"no files are given for {name!r}; name at least one")
    return found


def read_blocks(path: pathlib.Path, *, quote: bytes | None = None, span: Span | None = None) -> Iterator[Block]:
    """Blocks cut at line ends, or at record ends where `quote` may enclose a line end; raises `DataError`.

    The blocks of a `span` are those of the whole file that lie in it.
    """
    size = BLOCK_BYTES if span is None else span.block_bytes
    rest, line, started = b"", 1 if span is None else span.first_line, False
    for piece in _pieces(path, size, span):
        first = not started and (span is None or span.start == 0)
        rest += piece.removeprefix(BOM) if first else piece
        started = True
        cut = _cut(rest, quote)
        if cut == 0 and len(rest) > MAX_RECORD_BLOCKS * size:
            raise DataError(
                f"{path}, line {line}: this row does not end within {len(rest)} bytes; "
                "expected lines of text (a quote that is never closed, or not a text file?)"
            )
        if cut:
            data, rest = rest[:cut], rest[cut:]
            yield Block(data, line)
            line += data.count(b"\n")
    if not started:
        raise DataError(f"{path} is empty; expected at least one row")
    if rest:
        yield Block(rest, line)


def stretches(file: IO[bytes], start: int, stop: int, size: int) -> Iterator[bytes]:
    """Bytes `start` to `stop` of a file, in pieces that end at multiples of `size`."""
    file.seek(start)
    while start < stop and (piece := file.read(min(size - start % size, stop - start))):
        yield piece
        start += len(piece)


def _expand(pattern: str) -> list[pathlib.Path]:
    path = pathlib.Path(pattern).expanduser()
    if path.is_dir():
        raise DataError(f"{path} is a folder; name its files, or a glob such as {path}/*")
    if path.exists():
        return [path]
    if not glob.has_magic(pattern):
        raise DataError(f"{path}: no such file")
    parts = path.parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = pathlib.Path(*parts[:fixed])
    found = sorted(match for match in root.glob(str(pathlib.Path(*parts[fixed:]))) if match.is_file())
    if not found:
        raise DataError(f"{path}: the glob matches no file")
    return found


def _cut(data: bytes, quote: bytes | None) -> int:
    """Length of the longest beginning that ends with a line end outside quotes."""
    end = data.rfind(b"\n") + 1
    if quote is None or not end:
        return end
    quotes = data.count(quote, 0, end)
    while end and quotes % 2:
        earlier = data.rfind(b"\n", 0, end - 1) + 1
        quotes -= data.count(quote, earlier, end)
        end = earlier
    return end


def _pieces(path: pathlib.Path, size: int, span: Span | None) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            if path.suffix in PACKED:
                yield from _decompressed(path, file, size)
            elif span is None:
                while piece := file.read(size):
                    yield piece
            else:
                yield from stretches(file, span.start, span.stop, size)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _decompressed(path: pathlib.Path, file: Any, size: int) -> Iterator[bytes]:
    """Decompress a file of one or more members or frames; a cut or damaged one raises `DataError`."""
    new, failure = _decompressor(path)
    stream, buffer = new(), bytearray()
    used = False
    while packed := file.read(1 << 18):
        while packed:
            if stream.eof:
                stream = new()
            try:
                buffer += stream.decompress(packed)
            except failure as error:
                raise DataError(f"{path} is damaged ({error}); obtain it again") from error
            used, packed = True, stream.unused_data
        while len(buffer) >= size:
            yield bytes(buffer[:size])
            del buffer[:size]
    if used and not stream.eof:
        raise DataError(f"{path} is truncated: its compressed stream ends too early; obtain it again")
    if buffer:
        yield bytes(buffer)


def _decompressor(path: pathlib.Path) -> tuple[Any, type[Exception]]:
    if path.suffix == ".gz":
        return (lambda: zlib.decompressobj(wbits=31)), zlib.error
    try:
        import zstandard
    except ImportError as error:
        raise DataError(f"{path}: reading .zst needs the package zstandard; pip install zstandard") from error
    return zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError
