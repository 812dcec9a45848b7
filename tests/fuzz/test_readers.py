"""Whatever lies where a reader looks is read, or refused in one short line: never anything else.

`OFA_JAX_FUZZ=10000 python -m pytest tests/fuzz` tries so many inputs, other ones each time, and
fails if they take more than a gigabyte; without it a few thousand are tried, always the same.
"""

import functools
import os
import resource
import shutil
import tempfile
from pathlib import Path

import pytest
from fuzz import found, inputs
from fuzz.damage import PLACES
from fuzz.readers import READERS
from hypothesis import HealthCheck, example, given, settings

ASKED = int(os.environ.get("OFA_JAX_FUZZ", 0))
INPUTS = ASKED or 2500  # of all readers together
GROWTH = 1e9  # bytes
OF_FILES = [reader for reader in READERS if reader.file not in ("", "report.html")]


def named(readers):
    return pytest.mark.parametrize("reader", readers, ids=[reader.name for reader in readers])


@pytest.fixture(scope="module")
def directory():
    """A short path, as errors quote it."""
    place = Path(tempfile.mkdtemp(prefix="f"))
    yield place / "d"
    shutil.rmtree(place)


@pytest.fixture(scope="module", autouse=True)
def little_memory():
    """All inputs together leave the process as large as it was, but for a gigabyte."""
    before = peak()
    yield
    assert peak() - before < GROWTH


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@named(READERS)
def test_what_is_good_is_accepted(reader, directory):
    for content in reader.good:
        refused = inputs.read(reader, directory, functools.partial(put_bytes, content))
        assert not refused


def put_bytes(content, path):
    path.write_bytes(content)


class Content(bytes):
    """What a file holds; a failure prints its start, as hypothesis warns of what is long."""

    def __repr__(self):
        return f"<{len(self)} bytes: {bytes(self[:2000])!r}>"


@named(READERS)
def test_damage_is_read_or_told_in_one_line(reader, directory):
    share = reader.share / sum(other.share for other in READERS)

    @settings(
        max_examples=-int(-INPUTS * share // 1),
        deadline=None,
        derandomize=not ASKED,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(content=reader.contents.map(Content))
    def check(content):
        inputs.read(reader, directory, functools.partial(put_bytes, content))

    for content in found.FOUND.get(reader.name, ()):
        check = example(content=Content(content))(check)
    check()


@named(OF_FILES)
@pytest.mark.parametrize("put", PLACES)
def test_what_is_no_file_is_not_waited_for(reader, put, directory):
    inputs.read(reader, directory, put)
