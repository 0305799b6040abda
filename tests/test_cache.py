"""Laws of the cache: private, whole or a miss, within its limit, and never taken from whoever uses it."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metalora.cli import main
from metalora.config import UserError
from metalora.store import files
from metalora.store.cache import Cache, clear_up, default_folder, default_limit, entries

LATENT = {"latent": torch.randn(16, 8, 8, generator=torch.Generator().manual_seed(1))}
KEY = Cache.key(what="latent")


def test_a_key_is_of_the_content_in_whatever_order_it_is_named():
    key = Cache.key(what="latent", photo="abc", box=[1.0, 2.0])
    assert key == Cache.key(box=[1.0, 2.0], photo="abc", what="latent")
    assert key != Cache.key(what="latent", photo="abd", box=[1.0, 2.0])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_the_cache_is_its_owners_alone_whatever_the_umask_and_also_one_of_before(tmp_path: Path):
    (tmp_path / "cache" / "ab").mkdir(parents=True, mode=0o755)
    before = os.umask(0)
    try:
        Cache(tmp_path / "cache").put(KEY, LATENT)
    finally:
        os.umask(before)
    folders = [path for path in (tmp_path / "cache").rglob("*") if path.is_dir()]
    assert [mode(path) for path in folders] == [0o700, 0o700]
    assert mode(entries(tmp_path / "cache")[0].path) == 0o600


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:50],
    "one bit": lambda data: data[:-3] + bytes([data[-3] ^ 4]) + data[-2:],
    "another entry": lambda data: files.safetensors_bytes(LATENT, {"format": "pt"}),
    "no safetensors": lambda data: b"gone " * 100,
}


@pytest.mark.parametrize("what", [*DAMAGE, "a folder"])
def test_a_damaged_entry_is_a_miss_and_is_made_anew(tmp_path: Path, what: str):
    cache, other = Cache(tmp_path), Cache.key(what="other")
    cache.put(KEY, LATENT)
    (entry,) = entries(tmp_path)
    if what == "a folder":
        entry.path.unlink()
        entry.path.mkdir()
    else:
        entry.path.write_bytes(DAMAGE[what](entry.path.read_bytes()))
    assert KEY not in cache
    assert other not in cache
    if what == "a folder":
        return
    with pytest.raises(UserError, match="removed or damaged while it was needed"):
        cache.get(KEY)
    cache.put(KEY, LATENT)
    assert torch.equal(cache.get(KEY)["latent"], LATENT["latent"])


def test_entries_that_were_not_used_for_the_longest_time_go_first(tmp_path: Path):
    cache = Cache(tmp_path, limit=3 * 5000)
    keys = [Cache.key(number=number) for number in range(5)]
    for number, key in enumerate(keys):
        cache.put(key, LATENT)
        os.utime(cache._path(key), (1e9 + number, 1e9 + number))
    assert keys[0] in cache, "now it is the one that was used last"
    del cache
    assert sum(entry.size for entry in entries(tmp_path)) <= 3 * 5000
    assert {entry.path.stem for entry in entries(tmp_path)} == {keys[0], keys[3], keys[4]}


def test_nothing_is_kept_where_the_limit_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("METALORA_CACHE_LIMIT", "0")
    cache = Cache(tmp_path)
    cache.put(KEY, LATENT)
    assert KEY in cache, "the job that made it finds it"
    del cache
    assert not list(tmp_path.rglob("*.safetensors"))
    monkeypatch.setenv("METALORA_CACHE_LIMIT", "much")
    with pytest.raises(UserError, match="METALORA_CACHE_LIMIT is 'much'; a number of GB"):
        default_limit()


def test_nothing_is_taken_from_a_process_that_runs_and_everything_from_one_that_died(tmp_path: Path):
    code = (
        "import sys, torch; from pathlib import Path; from metalora.store.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1])); cache.put(sys.argv[2], {'latent': torch.ones(4)})\n"
        "print('there', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path), KEY]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=Path(__file__).parents[1], **pipes) as process:
        assert process.stdout.readline() == "there\n"
        assert clear_up(tmp_path, 0) == (0, 0)
        assert main(["cache", "clear", "--cache", str(tmp_path)]) == 1
        assert len(entries(tmp_path)) == 1
        process.kill()
    assert list(tmp_path.glob("*.partial")), "it could not say goodbye"
    assert main(["cache", "clear", "--cache", str(tmp_path)]) == 0
    assert not list(tmp_path.rglob("*"))


def test_the_cache_is_shown_and_cleared_without_anything_else_of_its_folder(tmp_path: Path, capsys):
    Cache(tmp_path).put(KEY, LATENT)
    for name in ("ab/model.safetensors", "people.txt", "notes/x.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    assert main(["cache", "show", "--cache", str(tmp_path)]) == 0
    assert f"{tmp_path}: 1 entries, 0.0 MB of at most 50,000 MB" in capsys.readouterr().out
    assert main(["cache", "clear", "--cache", str(tmp_path)]) == 0
    assert "removed 1 entries" in capsys.readouterr().out
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"ab/model.safetensors", "people.txt", "notes/x.safetensors"}


def test_a_cache_that_cannot_be_written_names_its_own_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"could not be written: .* another place with --cache"):
        Cache(tmp_path / "file").put(KEY, LATENT)
    for name in ("METALORA_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(UserError, match="no home folder to keep a cache in: name one with --cache"):
        default_folder()
