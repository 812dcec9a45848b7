"""One run a directory, on a disk and in a bucket."""

import contextlib
import json
import shutil
import threading

import pytest

from ofa_jax.errors import InputError
from ofa_jax.run import lock, processes, workdir


@pytest.fixture
def fast(monkeypatch):
    """Owners that beat ten times a second, and count as alive however slow the machine is."""
    monkeypatch.setattr(lock, "BEAT", 0.1)
    monkeypatch.setattr(lock, "STALE", 3600.0)


@pytest.fixture
def another(monkeypatch):
    """What is locked inside is locked by another process."""

    @contextlib.contextmanager
    def locking(directory):
        with lock.locked(directory):
            held, lock._locked = lock._locked, set()
            yield
            lock._locked = held

    return locking


def test_a_directory_on_a_disk_is_one_process_s(tmp_path, another):
    with another(tmp_path):
        refused = pytest.raises(ValueError, match=r"is in use by another run, process \d+$")
        with refused, lock.locked(tmp_path):
            pass
    with lock.locked(tmp_path), lock.locked(tmp_path):  # within itself it does nothing
        assert (tmp_path / ".lock").is_file()


def test_a_copy_of_a_bucket_s_directory_says_what_to_remove(tmp_path):
    (tmp_path / ".lock").mkdir()
    (tmp_path / ".lock" / "000003").write_text("{}")
    message = r"\.lock is the lock of a run in a bucket: remove it if .* is a copy"
    with pytest.raises(ValueError, match=message), lock.locked(tmp_path):
        pass
    assert (tmp_path / ".lock" / "000003").exists()  # it may be a mounted bucket's, and in use


def test_a_directory_in_a_bucket_is_one_process_s(in_bucket, fast, another, capsys):
    with another(in_bucket):
        message = r"gs://bucket/.* is in use by another run, process \d+ on "
        with pytest.raises(ValueError, match=message), lock.locked(in_bucket):
            pass
    assert "was in use by process" in capsys.readouterr().out
    with lock.locked(in_bucket), lock.locked(in_bucket):  # at once: the other one released it
        assert [path.name for path in (in_bucket / ".lock").iterdir()] == ["000002"]
    assert capsys.readouterr().out == ""


def test_an_owner_without_a_sign_of_life_is_replaced_and_ends(in_bucket, fast, monkeypatch):
    """As a process does that was stopped, or cut off, for longer than it may be."""
    said, ended = [], threading.Event()

    def end_at_once(text, code):
        said.append((text, code))
        ended.set()
        raise SystemExit

    monkeypatch.setattr(processes, "end_at_once", end_at_once)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    silent = lock._Owner(in_bucket / ".lock")
    silent.take()
    monkeypatch.setattr(lock, "STALE", 0.5)
    with lock.locked(in_bucket):
        newer = json.loads((in_bucket / ".lock" / "000002").read_bytes())
        assert newer["id"] != silent._about["id"]
        assert not (in_bucket / ".lock" / "000001").exists()
        awake = threading.Thread(target=silent.beat, daemon=True)
        awake.start()
        assert ended.wait(60)
        awake.join(60)
    ((text, code),) = said
    assert "was taken over by another run, process " in text
    assert code == 2


def test_an_owner_that_meets_its_own_object_is_the_owner(in_bucket, fast, monkeypatch):
    """A request is sent again where its answer was lost."""
    create = lock.storage.create
    monkeypatch.setattr(lock.storage, "create", lambda *args: create(*args) and create(*args))
    with lock.locked(in_bucket):
        assert (in_bucket / ".lock" / "000001").is_file()


def test_of_many_that_start_at_once_one_is_the_owner(in_bucket, fast):
    owners = [lock._Owner(in_bucket / ".lock") for _ in range(4)]
    begin, won, lost = threading.Barrier(4), [], []

    def start(owner):
        begin.wait()
        try:
            owner.take()
        except ValueError:
            lost.append(owner)
            return
        won.append(owner)
        owner.beat()

    threads = [threading.Thread(target=start, args=(owner,), daemon=True) for owner in owners]
    for thread in threads:
        thread.start()
    while len(won) + len(lost) < 4:
        threads[0].join(0.1)
    for owner in won:
        owner.left.set()
    assert (len(won), len(lost)) == (1, 3)


def test_a_workdir_that_vanished_is_named(tmp_path):
    """Also where another one has taken its place; what failed first follows."""
    run, aside = tmp_path / "run", tmp_path / "aside"
    for replaced in (False, True):
        run.mkdir(exist_ok=True)
        (run / "config.json").touch()
        gone = pytest.raises(OSError, match=r"^workdir .*/run has vanished: its x is missing$")
        with gone, workdir.locked(run), workdir.locked(run):
            run.rename(aside)
            if replaced:
                run.mkdir()
            raise InputError("its x is missing")
        shutil.rmtree(aside)
    with pytest.raises(InputError, match="^another$"), workdir.locked(run):
        raise InputError("another")
