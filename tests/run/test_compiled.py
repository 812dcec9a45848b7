import os
import warnings

import jax
import pytest

from ofa_jax.run import compiled


@pytest.fixture
def settings(monkeypatch):
    """JAX's settings that are changed, put back afterwards; no directory is set."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield lambda: {name: getattr(jax.config, name) for name in names}
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_the_users_cache(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled.keep()
    directory, seconds = settings().values()
    assert directory == str(tmp_path / "ofa_jax")
    assert os.path.isdir(directory)
    assert seconds == compiled.SECONDS


def test_a_place_that_is_told_stays(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    before = settings()
    compiled.keep()
    assert settings() == before
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_nothing_is_kept(settings, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    before = settings()
    compiled.keep()
    assert settings() == before


def test_a_user_without_a_home_keeps_nothing(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as Python does then
    before = settings()
    compiled.keep()
    assert settings() == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("doing", ["reading", "writing"])
def test_half_a_program_is_removed_and_nobody_is_told(settings, tmp_path, monkeypatch, doing):
    """JAX warns each time, and never writes it again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shown = []
    monkeypatch.setattr("warnings.showwarning", lambda message, *_: shown.append(str(message)))
    compiled.keep()
    names = ("jit_step-ab12-cache", "jit_step_of-cd34-cache", "jit_init-ef56-cache")
    for name in names:
        (tmp_path / "ofa_jax" / name).write_text("half")
    trouble = f"Error {doing} persistent compilation cache entry for 'jit_step': OSError: No space"
    for text in (trouble, "another"):
        warnings.showwarning(UserWarning(text), UserWarning, "compiler.py", 1)
    assert sorted(p.name for p in (tmp_path / "ofa_jax").iterdir()) == sorted(names[1:])
    assert shown == ["another"]
