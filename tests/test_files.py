"""Whatever lies on disk gives its content or one short line that names the file."""

import ast
import contextlib
import json
import os
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofa_jax import files

FEW = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "größe.json"
    data = {"classes": ["Äpfel", "手机"], "n": 2**40, "x": 0.1}
    files.write_json(path, data)
    assert files.read_json(path) == data
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert files.read_object(path, "n", "x") == data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1', "is not JSON: Expecting ',' delimiter: line 1 column 8"),
        (b'{"a": NaN}', "is not JSON: NaN is no number of JSON"),
        (b'{"a": -Infinity}', "is not JSON: -Infinity is no number of JSON"),
        (b"[" * 100_000, "is not JSON: maximum recursion"),
        (b"1" * 10_000, "is not JSON: Exceeds the limit"),
        ("naïve".encode("latin-1"), "is not UTF-8 text: byte 2 is not"),
        (b"", "is not JSON: Expecting value: line 1"),
        (b"[1]", "holds list: expected an object"),
        (b"{}", "has no 'name'"),
    ],
)
def test_damage_is_named_with_its_file(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"a.json {message}") as raised:
        files.read_object(path, "name")
    assert len(str(raised.value)) < 300 + len(str(path))


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("pipe", "pipe is no regular file"),
        (".", "is no regular file"),
        ("none", "none: no such file"),
    ):
        for read in (files.read_json, files.read_arrays):
            with pytest.raises(ValueError, match=message):
                read(tmp_path / name)
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", files.LARGEST + 1)  # takes no room
    with pytest.raises(ValueError, match="large has 268 MB: expected a small file"):
        files.read_text(tmp_path / "large")


def test_words_are_one_short_line():
    assert files.short("a\nb\x1b[2J\x1b[31;1m\ud800\x1b c") == "a b\ufffd\ufffd c"
    assert files.short("x" * 1000, 10) == "xxxxxxxxx…"
    assert files.shown(10**5000) == "int of too many digits"
    assert len(files.shown(["x" * 5000] * 300)) <= files.LONGEST


def test_an_error_names_the_file_once(tmp_path):
    path = tmp_path / "a.json"
    for message in ("seed=-1", f"{path}: seed=-1"):
        with pytest.raises(ValueError) as caught, files.naming(path):
            raise ValueError(message)
        assert str(caught.value) == f"{path}: seed=-1"


def test_a_small_file_does_not_unpack_to_a_large_one(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open("a.npy", "w") as entry,
    ):
        for _ in range(files.LARGEST // 2**20 + 1):
            entry.write(bytes(2**20))
    assert (tmp_path / "a.npz").stat().st_size < 2**20
    with pytest.raises(ValueError, match="a.npz is no .npz .*: it unpacks to 269 MB"):
        files.read_arrays(tmp_path / "a.npz")


@FEW
@given(data=st.binary(max_size=200))
def test_any_bytes_are_json_or_an_error_of_ours(tmp_path, data):
    path = tmp_path / "any.json"
    path.write_bytes(data)
    try:
        found = files.read_json(path)
    except ValueError as error:
        assert str(path) in str(error)
        return
    assert json.loads(data) == found


@FEW
@given(
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=20),
    cut=st.integers(0, 10_000),
)
def test_a_damaged_npz_is_arrays_or_an_error_of_ours(tmp_path, changes, cut):
    path = tmp_path / "any.npz"
    np.savez(path, kernel=np.arange(12.0).reshape(3, 4), about=np.array("text"))
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data[: cut or len(data)])
    try:
        assert all(isinstance(a, np.ndarray) for a in files.read_arrays(path).values())
    except ValueError as error:
        assert str(path) in str(error)
        assert len(str(error)) < 300 + len(str(path))


def test_half_a_surrogate_pair_is_escaped(tmp_path):
    files.write_text(tmp_path / "a.txt", "猫 \ud800")
    assert files.read_text(tmp_path / "a.txt") == "猫 \\ud800"


REPOSITORY = Path(__file__).parents[1]


def in_system_encoding(call):
    """Whether a call opens text without saying in which encoding."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    of_path = isinstance(call.func, ast.Attribute)
    if name == "open":
        modes = [a.value for a in [*call.args, *given.values()] if isinstance(a, ast.Constant)]
        found = not of_path or not call.args or modes[:1] == [getattr(call.args[0], "value", None)]
        return found and "encoding" not in given and not any("b" in str(mode) for mode in modes)
    if name in ("read_text", "write_text"):
        return of_path and "encoding" not in given
    started = name in ("run", "Popen", "call", "check_call", "check_output")
    return started and {"text", "universal_newlines"} & {*given} and "encoding" not in given


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("open(path)", True), ("open(path, 'w')", True), ("open(path, mode='a')", True),
        ("path.open()", True), ("path.open('w')", True), ("(a / b).open(errors='x')", True),
        ("path.read_text()", True), ("path.write_text(text)", True), ("run(x, text=True)", True),
        ("open(path, 'rb')", False), ("path.open('ab')", False), ("open(p, encoding='x')", False),
        ("path.read_text(encoding='utf-8')", False), ("read_text(path)", False),
        ("Image.open(path)", False), ("found.open(split)", False), ("run(x)", False),
    ],
)  # fmt: skip
def test_what_opens_text_is_recognised(code, found):
    assert bool(in_system_encoding(ast.parse(code).body[0].value)) == found


def test_no_file_is_in_the_systems_encoding():
    paths = [REPOSITORY / "main.py"]
    for folder in ("ofa_jax", "benchmarks", "configs"):
        paths += (REPOSITORY / folder).rglob("*.py")
    assert len(paths) > 100
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found = isinstance(node, ast.Call) and in_system_encoding(node)
            assert not found, f"{path}:{node.lineno}: encoding='utf-8' is missing"


@contextlib.contextmanager
def full_disk():
    """No file may grow beyond a page: the system refuses the rest, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "found.json"
    files.write_json(path, ["old"])
    with full_disk(), pytest.raises(OSError, match=r"found\.json could not be written: File too"):
        files.write_json(path, ["new" * 5000])
    assert files.read_json(path) == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["found.json"]
    with pytest.raises(OSError, match=r"gone/a could not be written: No such file or directory"):
        files.write_text(tmp_path / "gone/a", "")


def test_a_place_to_write_to_keeps_the_suffix(tmp_path):
    with files.written(tmp_path / "model.onnx") as place:
        assert place.suffix == ".onnx"
        place.write_text("whole")
        assert [p.name for p in tmp_path.iterdir()] == [place.name]
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"model.onnx": "whole"}
    with pytest.raises(KeyboardInterrupt), files.written(tmp_path / "model.onnx") as place:
        place.write_text("half")
        raise KeyboardInterrupt
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"model.onnx": "whole"}
