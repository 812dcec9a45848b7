"""What a disk and a bucket do alike, each operation in both."""

import os

import pytest

from ofa_jax import storage
from ofa_jax.files import read_bytes, read_json, read_text, write_json, write_text, written


@pytest.fixture(params=["disk", "bucket"])
def place(request, tmp_path):
    """A directory of the test's own on a disk, and one in a bucket."""
    if request.param == "disk":
        return tmp_path
    return request.getfixturevalue("in_bucket")


def names(directory):
    return [str(path.relative_to(directory)) for path in storage.below(directory)]


def test_files_are_replaced_as_a_whole_or_not_at_all(place):
    path = place / "a" / "numbers.json"
    path.parent.mkdir()
    write_json(path, [1])
    with pytest.raises(OSError, match=r"numbers.json could not be written: no paper"):
        _fail_half_way(path)
    assert read_json(path) == [1]
    write_json(path, [2])
    assert read_json(path) == [2]
    write_text(path.with_name("ü.txt"), "half of a pair: \ud800")
    assert read_text(path.with_name("ü.txt")) == "half of a pair: \\ud800"
    assert names(place) == ["a/numbers.json", "a/ü.txt"]


def _fail_half_way(path):
    with written(path) as temporary:
        assert temporary.suffix == ".json"
        temporary.write_text("[1, 2")
        raise OSError("no paper")


def test_what_is_not_there_is_named(place):
    with pytest.raises(ValueError, match=r"none.json: no such file"):
        read_bytes(place / "none.json")
    assert not (place / "none").exists()
    assert not storage.is_published(place / "none", "card.json")
    storage.remove(place / "none")
    assert storage.below(place) == []


def test_a_directory_is_replaced_as_a_whole(place):
    net = place / "net"

    def write(text, *, fail=False):
        with storage.replaced(net, "card.json") as made:
            (made / "card.json").write_text(text)
            (made / "inner").mkdir()
            (made / "inner" / text).write_text(text)
            if fail:
                raise OSError("no more")

    write("one")
    write("two")
    with pytest.raises(OSError, match="no more"):
        write("three", fail=True)
    assert storage.is_published(net, "card.json")
    assert names(net) == ["card.json", "inner/two"]
    assert names(place) == ["net/card.json", "net/inner/two"]
    assert (net / "inner" / "two").read_bytes() == b"two"
    assert storage.size(net / "card.json") == 3


def test_what_grows_is_there_when_it_is_flushed(place):
    path = place / "log.jsonl"
    with storage.appending(path) as file:
        file.write(b"one\n")
        file.flush()
        assert path.read_bytes() == b"one\n"
        file.write(b"two\n")
    with storage.appending(path) as file:
        file.write(b"three\n")
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_a_disk_has_each_line_at_once_and_a_bucket_after_a_while(tmp_path, in_bucket, monkeypatch):
    with storage.appending(tmp_path / "log") as file:
        file.write(b"one")
        assert (tmp_path / "log").read_bytes() == b"one"
    path = in_bucket / "log"
    with storage.appending(path) as file:
        file.write(b"one")
        assert not path.exists()
    monkeypatch.setattr(storage, "SENT_EVERY", 0.0)
    with storage.appending(path) as file:
        file.write(b", two")
        assert path.read_bytes() == b"one, two"


def test_directories_are_moved_and_removed(place):
    for name in ("1/state/a", "1/b", "2/b"):
        (place / "steps" / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(place / "steps" / name, name)
    storage.move(place / "steps" / "1", place / "damaged")
    assert names(place) == ["damaged/b", "damaged/state/a", "steps/2/b"]
    assert read_text(place / "damaged" / "state" / "a") == "1/state/a"
    storage.move(place / "steps" / "2", place / "damaged")
    assert names(place) == ["damaged/b"]
    storage.discard(place / "damaged")
    assert names(place) == []


def test_a_local_copy_has_the_same_bytes(place):
    write_text(place / "model.onnx", "weights")
    with storage.local_copy(place / "model.onnx") as copy:
        assert os.path.isfile(copy)
        assert (copy.name, copy.read_text()) == ("model.onnx", "weights")


def test_one_of_two_creates_an_object(in_bucket):
    assert storage.create(in_bucket / "owner", b"one")
    assert not storage.create(in_bucket / "owner", b"two")
    assert (in_bucket / "owner").read_bytes() == b"one"


def test_half_of_a_directory_in_a_bucket_is_none(in_bucket):
    """A run that was killed between the files of a subnet leaves no card."""
    write_text(in_bucket / "small" / "labels.txt", "bird")
    assert (in_bucket / "small").is_dir()
    assert not storage.is_published(in_bucket / "small", "card.json")


def test_a_bucket_that_is_none_is_named(in_bucket):
    storage.check_bucket(in_bucket)
    with pytest.raises(OSError, match="gs://other cannot be reached: there is no such bucket$"):
        storage.check_bucket(storage.as_path("gs://other/run"))
