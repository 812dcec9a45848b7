"""What a user can cause is an `InputError`: one line and exit code 2."""

import ast
from pathlib import Path

import pytest

from ofa_jax.errors import InputError, foreign

PACKAGE = Path(__file__).parents[1] / "ofa_jax"
# Mistakes of ours, which no input leads to.
OWN_MISTAKES = {"group", "meanings"}


def functions_that_raise(kind):
    for path in PACKAGE.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    raised = node.exc if isinstance(node, ast.Raise) else None
                    if isinstance(raised, ast.Call) and ast.unparse(raised.func) == kind:
                        yield function.name


def test_what_a_user_can_cause_is_an_input_error():
    assert set(functions_that_raise("ValueError")) == OWN_MISTAKES
    assert len(list(functions_that_raise("InputError"))) > 200


def names_caught(tree):
    """What a file catches or suppresses, by name; a bare `except` is "BaseException"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = [node.type] if node.type else []
            yield from (ast.unparse(name) for name in caught) if caught else ["BaseException"]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            yield from map(ast.unparse, node.args)


# Who catches whatever comes, with the reason: the door for other libraries' decoders and the
# network; NumPy's reader; storage; what cleans up, or reports a fault, and raises it again.
BLANKET = {"errors.py", "files.py", "storage.py", "checkpoint.py", "run/checkpoints.py",
           "run/app.py"}  # fmt: skip


def test_no_other_file_catches_whatever_comes():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if {"Exception", "BaseException"} & set(names_caught(ast.parse(path.read_text())))
    }
    assert found == BLANKET


def test_what_a_foreign_library_raises_becomes_one_line():
    with pytest.raises(InputError, match="^a.png: KeyError$") as caught, foreign(line):
        raise KeyError("header")
    assert isinstance(caught.value.__cause__, KeyError)
    own = InputError("9,000 pixels")
    with pytest.raises(InputError) as caught, foreign(line):
        raise own
    assert caught.value is own
    with pytest.raises(KeyboardInterrupt), foreign(line):
        raise KeyboardInterrupt


def line(error):
    return f"a.png: {type(error).__name__}"
