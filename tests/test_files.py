"""Atomic writes."""

import os

import pytest

from keras_lottery.files import write_atomic


def test_writes_the_bytes_and_nothing_else(tmp_path):
    write_atomic(tmp_path / "a.bin", b"\x00\x01")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\x01"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("kind", [str, os.fspath, lambda p: p])
def test_takes_strings_and_paths(tmp_path, kind):
    write_atomic(kind(tmp_path / "a.bin"), b"")
    assert (tmp_path / "a.bin").read_bytes() == b""


def test_takes_a_name_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_atomic("a.bin", b"x")
    assert (tmp_path / "a.bin").read_bytes() == b"x"


def test_replaces_an_existing_file(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"long old content")
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_an_open_reader_keeps_the_old_content_whole(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old content")
    with open(target, "rb") as reader:
        write_atomic(target, b"new")
        assert reader.read() == b"old content"


def test_the_file_can_be_read_by_others_like_any_other(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_atomic(tmp_path / "a.bin", b"")
    assert (tmp_path / "a.bin").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_file_is_as_private_as_the_umask_asks(tmp_path):
    before = os.umask(0o077)
    try:
        write_atomic(tmp_path / "a.bin", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o600


def test_a_missing_folder_is_an_oserror_and_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        write_atomic(tmp_path / "missing" / "a.bin", b"x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch, failing):
    def fail(*args):
        raise OSError(28, "No space left on device")

    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_an_interrupt_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_folder_in_the_place_of_the_file_is_an_oserror(tmp_path):
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(OSError, match=r"a\.bin"):
        write_atomic(tmp_path / "a.bin", b"x")
    assert os.listdir(tmp_path) == ["a.bin"]
