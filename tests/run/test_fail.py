"""What is said where the command cannot go on: the error, once."""

import asyncio
import sys
from types import SimpleNamespace

import pytest

from ofa_jax.run import fail


async def read():
    """Stands for one of Orbax's that never came to its end."""


def test_what_a_failed_read_leaves_behind_is_not_shown(monkeypatch):
    others = []
    monkeypatch.setattr(sys, "unraisablehook", others.append)
    fail.say_once()
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError) as closed:  # as TensorStore's threads find it
        loop.call_soon_threadsafe(print)
    of_loop = SimpleNamespace(object=None, exc_traceback=closed.value.__traceback__.tb_next)
    code = read.__code__
    of_orbax, of_others = (
        SimpleNamespace(object=SimpleNamespace(cr_code=code), exc_traceback=None)
        for code in (code.replace(co_filename="/x/orbax/read.py"), code)
    )
    for event in (of_loop, of_orbax):
        sys.unraisablehook(event)
    assert not others
    elsewhere = SimpleNamespace(object=None, exc_traceback=closed.value.__traceback__)
    for event in (of_others, elsewhere):
        sys.unraisablehook(event)
    assert others == [of_others, elsewhere]
