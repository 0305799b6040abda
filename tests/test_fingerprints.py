"""A large file's fingerprint is of enough of it to tell it from another."""

import sys
from pathlib import Path

import pytest

from metalora.backbones.weight_files import WHOLE, fingerprint_of_file


@pytest.mark.skipif(sys.platform == "win32", reason="needs a file with holes")
def test_a_large_files_fingerprint_sees_header_size_and_samples(tmp_path: Path):
    def written(name: str, size: int, header: bytes, at: int, byte: bytes) -> str:
        with (tmp_path / name).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(size)
            file.seek(at)
            file.write(byte)
        return fingerprint_of_file(tmp_path / name)

    size = WHOLE + 2**20
    base = written("a", size, b"{ }", size // 2, b"\0")
    assert written("b", size, b"{ }", size // 2, b"\0") == base
    assert written("c", size + 1, b"{ }", size // 2, b"\0") != base
    assert written("d", size, b"{  }", size // 2, b"\0") != base
    assert written("e", size, b"{ }", size - 1, b"x") != base
