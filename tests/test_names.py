import os
from pathlib import Path

import pytest

from ofa_jax.names import check_inside, check_name, local_path, place, printable, read_name


@pytest.mark.parametrize("name", ["phone", "macs-3.041M", "v2_final (3)", "手机", "a" * 100])
def test_plain_names_are_taken(name):
    assert check_name("--name", name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/tmp/x", "a/b", "a\\b", ".hidden", "end.", "end ", " start", "a\0b",
     "a\nb", "C:", "what?", "a*b", "a|b", "<a>", "nul", "COM1", "aux.txt",
     "CON .x", "lpt²", "conout$", "~", "~root", "$HOME", "%TEMP%", "\u202ename", "a" * 101,
     "é" * 51, "\ud800"],
)  # fmt: skip
def test_what_is_no_plain_name_is_refused(name):
    with pytest.raises(ValueError, match="^--name=.*: expected a plain name, such as 'phone'"):
        check_name("--name", name)


def test_files_stay_inside():
    assert check_inside("files", "orbax/variables/d/0") == "orbax/variables/d/0"
    for path in ("", "/etc/passwd", "../x", "orbax/../../x", "a\\b", ".."):
        with pytest.raises(ValueError, match="files=.*: expected a file inside the directory"):
            check_inside("files", path)


@pytest.mark.parametrize("text", ["runs/a b", "100% 'q\" [x]*?", "größe/猫/🦉", "C:\\x", "a=b,c;d"])
def test_paths_of_any_script_are_taken(text):
    assert local_path("--workdir", text) == Path(text)
    assert printable(Path(text)) == text


@pytest.mark.parametrize("text", ["$HOME/runs", "${TMPDIR}/x", "$RUNS", "%USERPROFILE%/x"])
def test_a_variable_is_not_taken_literally(text):
    with pytest.raises(ValueError, match="^--workdir=.*: no shell has replaced this variable"):
        local_path("--workdir", text)
    assert local_path("--workdir", f"./{text}") == Path(text)  # a folder may be called that


@pytest.mark.parametrize("text", ["a\nb", "a\0b", "\x1b[31m", "a\u2028b", os.fsdecode(b"m\xfcll")])
def test_a_path_that_is_no_utf_8_or_no_line_is_refused(text):
    with pytest.raises(ValueError, match="^--workdir=.*: expected a path in UTF-8") as raised:
        local_path("--workdir", text)
    assert str(raised.value).isprintable()
    assert printable(text).isprintable()


def test_a_path_in_another_encoding_is_refused(monkeypatch):
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("latin-1"))
    assert local_path("--workdir", "runs/a") == Path("runs/a")
    for text in ("größe", "手机"):
        with pytest.raises(ValueError, match="where the locale has another encoding, set PYTHONUT"):
            local_path("--workdir", text)


def test_names_are_their_bytes_in_utf_8(monkeypatch):
    assert read_name("a/größe.txt") == "größe.txt"
    for name in (os.fsdecode(b"m\xfcll"), "a\nb"):
        with pytest.raises(ValueError, match=", rename it$"):
            read_name(f"a/{name}")
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("latin-1"))
    in_latin_1 = "größe".encode().decode("latin-1")  # what such a locale lists
    assert read_name(f"a/{in_latin_1}") == "größe"
    assert printable(f"a/{in_latin_1}") == "a/größe"
    assert printable("手机") == "手机"


def test_a_place_is_a_local_path_or_in_a_bucket(bucket):
    assert place("--workdir", "runs/a b") == Path("runs/a b")
    assert str(place("init", "gs://bucket/runs/größe/")) == "gs://bucket/runs/größe"
    wrong = [
        "gs://", "gs://b/run", "gs://bucket", "gs://bucket/", "gs://bucket/../b", "gs:/bucket/a",
        "gs://bucket/a//b", "gs://bucket/a*", "gs://Bucket/a", "s3://bucket/a", "file:///a",
        "https://a/b", "gs://bucket/a\nb", f"gs://bucket/{'a' * 5000}",
    ]  # fmt: skip
    for text in wrong:
        with pytest.raises(
            ValueError, match="^init=.*: expected a local path, or gs://BUCKET/PATH"
        ):
            place("init", text)


def test_what_a_bucket_needs_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs gcsfs: pip install 'ofa-jax\[gcs\]'$"):
        place("--workdir", "gs://bucket/run")
