"""Imports point one way: the layout of the package is held by this test."""

import ast
import graphlib
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ofa_jax"

# From the bottom to the top: a step imports steps before it, never one after it.
STAIRCASE = ("version", "errors", "extras", "storage", "files", "names", "normalization",
             "topology", "space", "plain", "elastic", "conv", "branches", "layers", "families",
             "network", "alone", "mesh", "search", "train", "subnets", "checkpoint", "supernet",
             "interop", "hub", "deploy", "", "run", "main")  # fmt: skip

# What a library of this project's own may not need: it belongs to the application.
APPLICATION = {"absl", "cv2", "grain", "jinja2", "matplotlib", "ml_collections", "PIL", "scipy",
               "simplejpeg", "sklearn", "tensorboard", "tensorflow_datasets", "tqdm"}  # fmt: skip


def top(name):
    """The step of a module; a command, `__main__`, is one with `main.py`."""
    return "main" if name.endswith("__main__") else name.partition(".")[0]


def sources():
    """The files of the package and `main.py`, by module; the package itself is ""."""
    yield "main", ROOT / "main.py"
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


MODULES = dict(sources())


def imports(path):
    """Full names that a file imports, wherever in it: submodules of `from x import y` included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path):
    """The modules of the package that a file imports."""
    for name in imports(path):
        if top(name) == "ofa_jax":
            inner = name.partition(".")[2]
            while inner not in MODULES:  # a function or class of its module
                inner = inner.rpartition(".")[0]
            yield inner


GRAPH = {name: set(own_imports(path)) for name, path in MODULES.items()}


def test_no_import_goes_up_the_staircase():
    steps = [top(name) for name in MODULES]
    assert set(steps) == set(STAIRCASE)
    up = [
        f"{name} imports {target}"
        for name, targets in GRAPH.items()
        for target in targets
        if STAIRCASE.index(top(name)) < STAIRCASE.index(top(target))
    ]
    assert up == []


def test_imports_have_no_circle():
    order = list(graphlib.TopologicalSorter(GRAPH).static_order())
    assert sorted(order) == sorted(MODULES)


def test_the_library_imports_nothing_of_the_application():
    found = {
        f"{name} imports {target}"
        for name, path in MODULES.items()
        if top(name) not in ("run", "main")
        for target in imports(path)
        if top(target) in APPLICATION
        or top(target) == "configs"
        or target.startswith("ofa_jax.run")
    }
    assert found == set()


def test_importing_the_library_loads_its_own_dependencies_alone():
    needed = loaded("jax", "flax.linen", "optax", "numpy", "orbax.checkpoint")
    found = loaded("ofa_jax")
    assert {"jax", "flax", "optax", "numpy", "orbax"} <= found
    own = {name for name in found if top(name) == "ofa_jax"}
    assert {top(name) for name in found - own - needed} <= sys.stdlib_module_names | tops(needed)
    assert not any(name.startswith("ofa_jax.run") for name in own)
    assert APPLICATION & tops(found) <= {"absl", "scipy"}  # optax and jax bring these


def loaded(*modules):
    """The modules of a new process that has imported these."""
    program = f"import json, sys, {', '.join(modules)}; print(json.dumps([*sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(json.loads(done.stdout))


def tops(names):
    return {top(name) for name in names}


def test_each_library_has_one_door():
    doors = {
        "orbax": {"checkpoint", "run.checkpoints"},
        "etils": {"storage"},
        "fsspec": {"storage"},
        "flax": {"branches", "layers", "families", "alone", "search"},  # the predictor
        "tqdm": {"run.metrics"},
        "absl": {"run.app", "run.flags", "run.data"},
        "ml_collections": {"run.config", "run.flags"},
        "matplotlib": {"run.picture", "run.report"},
        "tensorboard": {"run.metrics"},
        "onnx": {"deploy"},
        "onnxruntime": {"deploy"},
        "ai_edge_litert": {"deploy"},
        "ai_edge_quantizer": {"deploy"},
        "torch": {"interop"},
    }
    for name, path in MODULES.items():
        for target in imports(path):
            places = doors.get(top(target))
            inside = places is None or any(f"{name}.".startswith(f"{place}.") for place in places)
            assert inside, f"{name} imports {target}"


def test_a_family_is_known_to_its_own_file_alone():
    """Nothing outside `families/` asks which one it has: that is what `layers` is for."""
    files = {path: ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    inside = PACKAGE / "families"
    own = {
        node.name
        for path in (inside / "mobilenet.py", inside / "resnet.py")
        for node in ast.walk(files[path])
        if isinstance(node, ast.ClassDef)
    }
    assert {"MobileNetSpace", "ResNet", "Bottleneck"} <= own
    for path, tree in files.items():
        for node in ast.walk(tree):
            if path.parent != inside and isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else ""
                names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                assert called not in ("isinstance", "issubclass") or not names & own, path.name


def test_what_no_test_imports_imports_what_there_is():
    """Programs beside the tests, benchmarks and configs: a module that moved is found here."""
    for path in (
        *ROOT.glob("tests/**/*.py"),
        *ROOT.glob("benchmarks/*.py"),
        *ROOT.glob("configs/*.py"),
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and top(node.module or "") == "ofa_jax":
                assert node.module.partition(".")[2] in MODULES, f"{path.name}: {node.module}"


FILE = re.compile(r"\b(?:tests|benchmarks|ofa_jax|docs|configs|notebooks)/[\w/]+\.\w+")


def test_files_that_are_named_are_there():
    for path in (
        *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("configs/*.py"),
        *ROOT.glob("benchmarks/*.py"), *PACKAGE.rglob("*.py"),
    ):  # fmt: skip
        for name in FILE.findall(path.read_text()):
            assert (ROOT / name).exists(), f"{path.relative_to(ROOT)} names {name}"


PUBLIC = {"_asdict", "_replace", "_fields", "_make", "_exit"}  # of tuples, and of `os`
NOT_PUBLIC = ("tensorboard.compat", "tensorboard.summary.writer")


def private_names(path):
    """What a file uses of other libraries, or of another object, that is not public."""
    tree = ast.parse(path.read_text())
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and is_self(n.value)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not is_self(node.value):
            private = node.attr.startswith("_") and not node.attr.startswith("__")
            if private and node.attr not in PUBLIC | own:
                yield ast.unparse(node)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "ofa_jax":
            continue
        if any(part.startswith("_") and part != "__future__" for part in parts):
            yield name
        yield from (known for known in NOT_PUBLIC if name.startswith(known))


def is_self(node):
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def test_what_is_not_public_is_listed_with_its_reason():
    page = (ROOT / "docs/internals.md").read_text()
    _, _, section = page.partition("## What is not public")
    listed = section.partition("\n## ")[0]
    for name, path in MODULES.items():
        for private in private_names(path):
            assert f"`{private}" in listed, f"{name} uses {private}"
