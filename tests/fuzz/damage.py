"""What may lie where a file is expected: bytes, JSON values and arrays that somebody changed."""

import io
import json
import os
import zipfile

import numpy as np
from hypothesis import strategies as st

DEEP = 100_000  # more brackets than Python recurses
ODD_VALUES = (
    None, True, False, "", "x", "a\x00b", "\ud800", "\x1b[31m\r\n", "é" * 50, "x" * 5000, "nan",
    "../../etc/passwd", "/dev/zero", [], [[]], {}, {"a": 1}, [None], ["x"], [1, 2], [[1], [2]],
    -1, 0, 1, 2, 7, 1000, 2**31 - 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63, -(2**63), 10**400,
    0.0, -0.0, 0.5, -0.5, 7.26, 3.0, 1e-320, 1e-30, 1e30, 1e300, float("nan"), float("inf"),
    float("-inf"), list(range(300)), {str(i): i for i in range(300)},
)  # fmt: skip
ODD_KEYS = ("unknown", "", "__class__", "\x1b[2J\n", "\ud800", "k" * 5000, "0", "-1", "1e9", "²")
ODD_TEXTS = (
    "NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "-0", "1E400", "null", "true", "{}", "[]",
    '"\\ud800"', '"\\u0000"', '"\x00"', "0x10", "[" * DEEP, '{"a":' * DEEP, "&a [*a]", "!!python/x",
)  # fmt: skip
WHOLE = (
    b"", b" ", b"\n", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"null", b"true", b"[]", b"{}", b"0",
    b'""', b"NaN", b"[" * DEEP, b'{"a":' * DEEP, b"[" * 900 + b"]" * 900, b"1" * 5000,
    b'"' + b"x" * 100_000 + b'"', b" " * 10_000_000, b"\x80\x04.", b"PK\x05\x06" + bytes(18),
)  # fmt: skip


@st.composite
def damaged(draw, seeds):
    """One of the contents, changed in a few places or replaced."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(WHOLE) | st.binary(max_size=300))
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 3))):
        data = draw(_byte_change(data))
    return data


@st.composite
def _byte_change(draw, data):
    place, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
    end = min(end, place + 2000)
    kind = draw(st.sampled_from(("cut", "flip", "put", "twice", "drop", "text", "encoding")))
    if kind == "cut":
        return data[:place]
    if kind == "flip":
        return data[:place] + draw(st.binary(min_size=1, max_size=4)) + data[place + 1 :]
    if kind == "put":
        return data[:place] + draw(st.binary(max_size=8)) + data[place:]
    if kind == "twice":
        return data[:end] + data[place:]
    if kind == "drop":
        return data[:place] + data[end:]
    if kind == "text":
        return data[:place] + draw(st.sampled_from(ODD_TEXTS)).encode() + data[place:]
    text = data.decode("latin-1")
    return draw(st.sampled_from((b"\xef\xbb\xbf" + data, text.encode("utf-16"), data + b"\x00")))


@st.composite
def changed(draw, seeds):
    """One of the JSON values with one or two of its parts dropped, added or replaced."""
    value = json.loads(json.dumps(draw(st.sampled_from(seeds))))
    for _ in range(draw(st.sampled_from((1, 1, 2)))):
        value = draw(_value_change(value))
    return value


@st.composite
def _value_change(draw, value):
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(_instead(value))
    if isinstance(value, dict):
        key = draw(st.sampled_from(sorted(value)))
        return {**value, key: draw(_value_change(value[key]))}
    index = draw(st.integers(0, len(value) - 1))
    return [*value[:index], draw(_value_change(value[index])), *value[index + 1 :]]


@st.composite
def _instead(draw, value):
    odd = st.sampled_from(ODD_VALUES) | st.integers() | st.floats() | st.text(max_size=20)
    if isinstance(value, bool) and draw(st.booleans()):
        return not value
    small = isinstance(value, int | float) and abs(value) < 2**53
    if small and draw(st.booleans()):  # what may well be accepted
        near = (value + 1, value - 1, 2 * value, value / 2, value // 2, -value, round(value))
        return draw(st.sampled_from(near))
    if isinstance(value, dict) and draw(st.booleans()):
        keys = sorted(value)
        if keys and draw(st.booleans()):
            dropped = draw(st.sampled_from(keys))
            return {key: inner for key, inner in value.items() if key != dropped}
        return {**value, draw(st.sampled_from(ODD_KEYS)): draw(odd)}
    if isinstance(value, list) and value and draw(st.booleans()):
        return draw(st.sampled_from((value[:-1], value * 2, value[::-1], [value], [*value, None])))
    return draw(odd)


def as_json(value):
    """The value as a file holds it, NaN and half a surrogate pair included."""
    return json.dumps(value).encode()


@st.composite
def changed_arrays(draw, seeds):
    """The bytes of an .npz file of which arrays were renamed, dropped, reshaped or refilled."""
    arrays = dict(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(arrays)))
        array = arrays.pop(name)
        if isinstance(array, Declared):  # declared by the change before
            array = np.ones(2)
        kind = draw(st.sampled_from(("drop", "rename", "dtype", "shape", "value", "text", "huge")))
        if kind == "rename":
            arrays[draw(st.sampled_from((*ODD_KEYS[:5], *arrays, "out/bias", "a/b/c")))] = array
        elif kind == "dtype":
            dtype = draw(st.sampled_from(("f2", "f4", "f8", "g", "i1", "u8", "c8", "?", "U3", "O")))
            arrays[name] = np.ones(array.shape, dtype)
        elif kind == "shape":
            shapes = (array.shape[::-1], (), (0,), (*array.shape, 1), (1, *array.shape[1:]),
                      (0, 2**40))  # fmt: skip
            arrays[name] = np.ones(draw(st.sampled_from(shapes)), np.float32)
        elif kind == "value" and array.dtype.kind == "f":
            odd = draw(st.sampled_from((np.nan, np.inf, -np.inf, 1e38, -1e38, 1e300, 1e-320)))
            arrays[name] = np.full(array.shape, odd)
        elif kind == "text":
            arrays[name] = np.asarray(json.dumps(draw(changed([_text(array)]))))
        elif kind == "huge":
            arrays[name] = Declared((draw(st.sampled_from((2**20, 2**34, 2**60))), 2))
        if not arrays:
            break
    return npz(arrays)


def _text(array):
    return json.loads(str(array)) if array.dtype.kind == "U" else {"a": 1}


class Declared:
    """An array whose header says a shape that nothing follows."""

    def __init__(self, shape):
        self.shape, self.dtype = shape, np.dtype(np.float64)


def npz(arrays):
    """The bytes of an .npz file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name, array in arrays.items():
            packed.writestr(f"{name}.npy".encode(errors="replace").decode(), _npy(array))
    return file.getvalue()


def _npy(array):
    file = io.BytesIO()
    if isinstance(array, Declared):
        about = {"descr": "<f8", "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(file, about)
    else:
        np.lib.format.write_array(file, array)
    return file.getvalue()


def put_pipe(path):
    os.mkfifo(path)


def put_directory(path):
    path.mkdir()


def put_device(path):
    path.symlink_to("/dev/zero")


def put_loop(path):
    path.symlink_to(path.name)


def put_dangling(path):
    path.symlink_to("nothing")


# What is no regular file, by what puts it there.
PLACES = (put_pipe, put_directory, put_device, put_loop, put_dangling)
