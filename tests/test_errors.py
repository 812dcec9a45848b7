"""What a user can cause is an `InputError`: one line and exit code 2."""

import ast
from pathlib import Path

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
