"""Imports point one way: the layout of the package is held by this test."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "ofa_jax"

# Who may import whom, inside the package.
ALLOWED = {
    "space": set(),
    "elastic": set(),
    "spaces": {"plain", "space"},
    "conv": set(),
    "models": {"space", "spaces", "elastic", "conv"},
    "search": {"plain", "space", "spaces"},
    "mesh": set(),
    "processes": set(),
    "signals": {"processes"},
    "streams": set(),
    "compiled": set(),
    "errors": set(),
    "extras": set(),
    "files": set(),
    "names": set(),
    "hub": {"checkpoint", "interop", "supernet"},
    "interop": {"space", "spaces", "elastic", "models", "checkpoint", "extras", "plain"},
    # A command, which is at the top of everything.
    "interop.__main__": {"checkpoint", "interop", "space", "spaces", "subnets", "supernet"},
    "metrics": {"plain", "processes"},
    "data": {"config"},
    "plain": {"space"},
    "config": {"space", "spaces", "plain", "train.losses", "train.phases"},
    "config_reference": {"config"},
    "supernet": {"space", "spaces", "checkpoint", "plain"},
    "checkpoint": {"space", "spaces", "models", "plain", "processes"},
    "contents": {"config", "data", "checkpoint", "interop"},
    "workdir": {"config", "contents", "data", "checkpoint", "plain", "processes"},
    "subnets": {"space", "spaces", "interop", "elastic", "models", "search", "data", "config",
                "checkpoint", "mesh", "metrics", "plain", "processes", "supernet"},
    "report": {"space", "spaces", "config", "checkpoint", "subnets", "metrics"},
    "train": {"space", "spaces", "models", "search", "subnets", "data", "config", "checkpoint",
              "extras", "interop", "mesh", "metrics", "processes", "report", "signals",
              "workdir", "contents", "supernet"},
    "deploy": {"space", "spaces", "conv", "models", "subnets", "data", "config", "checkpoint",
               "extras", "interop", "metrics", "processes", "__version__"},
}  # fmt: skip

EVERYWHERE = {"errors", "files", "names"}  # what meets the user and the disk


def imports(path):
    """Full module names that a file imports, submodules of `from x import y` included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_point_one_way():
    for path in PACKAGE.rglob("*.py"):
        layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if path.name == "__main__.py":
            layer = f"{layer}.__main__"
        for name in imports(path):
            if layer != "__init__" and name.startswith("ofa_jax."):
                target = name.removeprefix("ofa_jax.")
                own = target.split(".")[0] == layer
                below = ALLOWED[layer] | EVERYWHERE
                allowed = any(f"{target}.".startswith(f"{a}.") for a in below)
                assert own or allowed, f"{path.name} imports {name}"


def test_each_library_has_one_door():
    doors = {
        "orbax": {"checkpoint.py"},
        "flax": {"models", "search"},  # the predictor
        "tqdm": {"metrics.py"},
        "absl": {"data"},
        "onnx": {"deploy"},
        "onnxruntime": {"deploy"},
        "ai_edge_litert": {"deploy"},
        "torch": {"interop", "deploy"},
    }
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).parts[0]
        for name in imports(path):
            library = name.split(".")[0]
            assert library != "configs", f"{path.name} imports {name}"
            assert place in doors.get(library, {place}), f"{path.name} imports {name}"


def test_phases_and_losses_know_nothing_of_the_run():
    for name in ("phases", "losses"):
        for module in imports(PACKAGE / "train" / f"{name}.py"):
            own = module.startswith(("ofa_jax.space", "ofa_jax.train.losses"))
            assert own or not module.startswith("ofa_jax."), module
            assert module != "ofa_jax.config"
