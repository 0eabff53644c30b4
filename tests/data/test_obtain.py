"""Downloads, caches and checksums: whole or not at all, and only what was published."""

import gzip
import hashlib
import pathlib
import socket
import threading
import zipfile

import pytest

from wukong_jax.data.obtain import (
    SourceUnavailable,
    download,
    download_wheel,
    find_file,
    read_archive,
    read_file,
    read_fresh,
    show_terms,
    verify,
)
from wukong_jax.errors import DataError


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def serve_once(answer: bytes | None):
    """A server on a free port that sends `answer` to one caller and closes, or with None never answers."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        caller, _ = listener.accept()
        with caller:
            caller.recv(65_536)
            caller.sendall(answer)

    if answer is not None:
        threading.Thread(target=run, daemon=True).start()
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}/data.zip"


def test_a_download_arrives_whole(tmp_path):
    listener, url = serve_once(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    with listener:
        assert download(url, tmp_path / "cache" / "data.zip").read_bytes() == b"hello"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["data.zip"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nhello", "broke off after 5 of 100 bytes"),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n", "Forbidden"),
        (b"nonsense\r\n\r\n", "nonsense"),
    ],
)
def test_an_interrupted_or_refused_download_leaves_nothing(tmp_path, answer, message):
    listener, url = serve_once(answer)
    with listener, pytest.raises(SourceUnavailable, match=message):
        download(url, tmp_path / "data.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_answers_is_given_up(tmp_path):
    listener, url = serve_once(None)
    with listener, pytest.raises(SourceUnavailable, match=r"no answer within|timed out"):
        download(url, tmp_path / "data.zip", connect_seconds=0.2)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    listener, url = serve_once(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    with listener, pytest.raises(DataError, match=r"cache/data\.zip cannot be written"):
        download(url, tmp_path / "cache" / "data.zip")


def test_a_wrong_checksum_names_the_file_and_both_sums():
    assert verify("u.data", b"x", sha256(b"x")) == b"x"
    with pytest.raises(DataError, match=f"u.data: SHA-256 {sha256(b'y')}, expected {sha256(b'x')}"):
        verify("u.data", b"y", sha256(b"x"))


def test_a_download_that_is_not_the_published_file_is_removed(tmp_path):
    path = tmp_path / "data.zip"
    path.write_bytes(b"<html>please log in</html>")
    with pytest.raises(SourceUnavailable, match=r"refused.*data\.zip"):
        read_fresh(path, lambda archive: read_archive(archive, {"a": None}))
    assert not path.exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-30], "not a whole zip archive"),
        (lambda content: b"", "not a whole zip archive"),
        (lambda content: content.replace(b"hello", b"hullo"), "Bad CRC|SHA-256"),
    ],
)
def test_a_damaged_archive_is_refused(tmp_path, damage, message):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/a.txt", b"hello")
    assert read_archive(path, {"folder/a.txt": sha256(b"hello")}) == {"a.txt": b"hello"}
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"data.zip.*({message})"):
        read_archive(path, {"folder/a.txt": sha256(b"hello")})


def test_an_archive_without_the_member_names_it(tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b.txt", b"hello")
    with pytest.raises(DataError, match=r"data.zip.*a\.txt"):
        read_archive(path, {"a.txt": None})


def test_files_are_found_plain_or_gzipped(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"packed"))
    assert read_file(find_file(tmp_path, ["a"])) == b"packed"
    (tmp_path / "a").write_bytes(b"plain")
    assert read_file(find_file(tmp_path, ["a"])) == b"plain"
    with pytest.raises(DataError, match="lacks the file b or c"):
        find_file(tmp_path, ["b", "c"])
    with pytest.raises(DataError, match="no such folder"):
        find_file(tmp_path / "nowhere", ["a"])


def test_a_truncated_gz_names_the_file(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"packed" * 100)[:-12])
    with pytest.raises(DataError, match=r"a\.gz: cannot be read"):
        read_file(path)


def test_terms_are_printed_the_first_time_only(tmp_path, capsys):
    show_terms("toy", "be nice", tmp_path)
    show_terms("toy", "be nice", tmp_path)
    assert capsys.readouterr().out == "be nice\n"
    show_terms("toy", "be very nice", tmp_path)
    assert capsys.readouterr().out == "be very nice\n"


def make_wheel(folder: pathlib.Path) -> None:
    with zipfile.ZipFile(folder / "toy_tables-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toy_tables/table.txt", "rows")
        wheel.writestr("toy_tables-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy-tables\nVersion: 1.0\n")
        wheel.writestr("toy_tables-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("toy_tables-1.0.dist-info/RECORD", "")


def test_pip_downloads_a_wheel_into_the_cache(tmp_path, monkeypatch):
    links, cache = tmp_path / "links", tmp_path / "cache"
    links.mkdir()
    make_wheel(links)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    wheel = download_wheel("toy-tables==1.0", cache)
    assert wheel == cache / "toy_tables-1.0-py3-none-any.whl"
    assert read_archive(wheel, {"toy_tables/table.txt": sha256(b"rows")}) == {"table.txt": b"rows"}
    assert list(cache.iterdir()) == [wheel]


def test_a_wheel_that_pip_cannot_find_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(SourceUnavailable, match=r"pip download toy-tables==1\.0: "):
        download_wheel("toy-tables==1.0", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
