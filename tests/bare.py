"""Documented commands in a base installation: which work, and which name what they lack.

    python tests/bare.py runs/digits

The run is one that the README's first command made: it has trained, evaluated, searched, extracted,
fine-tuned and exported. Prints a table; exits with 1 where a command neither works nor ends with
one line that names what to install.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ofa_jax.run.groups.subnets import FORMATS

REPOSITORY = Path(__file__).parents[1]
RUN = Path(sys.argv[1])
SUBNET = RUN / "subnets/smallest"
WORKS, NAMES_EXTRA = "works", r"^error: .* needs [\w, ]+: pip install 'ofa-jax\[\w+\]'$"
SPACE = "--space=ofa_tiny_d123_e346_k357"


def main_py(*flags: object) -> list[str]:
    return ["main.py", *map(str, flags)]


def cases(scratch: Path) -> dict[str, tuple[list[str], str]]:
    """Commands by name, each with its expected result."""
    digits, here = "--config=configs/digits.py", f"--workdir={RUN}"
    latency = ("--config.search.cost=latency", "--config.search.archs=20",
               "--config.search.generations=20", "--config.search.winners=1",
               "--config.search.random_archs=0")  # fmt: skip
    exports = ("--mode=export", here, "--subnet=smallest", "--overwrite")
    (scratch / "net.pth").touch()
    found = {
        "profile": (main_py("--mode=profile", "--config=configs/smoke.py"), WORKS),
        "profile --target=v5e:2x2": (
            main_py("--mode=profile", digits, "--target=v5e:2x2"), NAMES_EXTRA
        ),
        "all in a bucket": (main_py(digits, "--workdir=gs://bucket/run"), NAMES_EXTRA),
        "all, again": (main_py(digits, here), WORKS),
        "train, again": (main_py("--mode=train", here), WORKS),
        "search of latency": (main_py("--mode=search", digits, here, *latency), WORKS),
        "predict": (main_py("--mode=predict", f"--subnet={SUBNET}", f"--images={scratch}"), WORKS),
        "benchmark": (main_py("--mode=benchmark", f"--subnet={SUBNET}", "--batch=2"), WORKS),
        "all, export.formats=onnx": (
            main_py(digits, f"--workdir={scratch / 'new'}", "--config.export.formats=('onnx',)"),
            NAMES_EXTRA,
        ),
        "interop, a PyTorch file": (
            ["-m", "ofa_jax.interop", str(scratch / "net.pth"), SPACE, f"--out={scratch / 'net'}"],
            NAMES_EXTRA,
        ),
        "hub": (
            ["-m", "ofa_jax.hub", str(RUN), f"--out={scratch / 'hub'}"], NAMES_EXTRA
        ),
        "README, Python": (["-c", readme_python()], WORKS),
    }  # fmt: skip
    for form in FORMATS:
        does = WORKS if form == "stablehlo" else NAMES_EXTRA
        found[f"export --format={form}"] = (main_py(*exports, f"--format={form}"), does)
    for name, flags in BENCHMARKS.items():
        found[f"benchmarks.{name} {' '.join(flags)}"] = (
            ["-m", f"benchmarks.{name}", *flags], NAMES_EXTRA
        )  # fmt: skip
    return found


AGAINST = ("--against-once-for-all",)
BENCHMARKS = {
    "input_pipeline": (), "export": (), "depthwise": AGAINST, "evaluate_subnets": AGAINST,
    "search": (*AGAINST, "--data=."), "startup": AGAINST, "train_step": AGAINST,
    "tpu_step": (),
}  # fmt: skip


def readme_python() -> str:
    """The README's Python, and the line of its text that loads the run's supernet."""
    text = (REPOSITORY / "README.md").read_text()
    loading = 'ofa_jax.load_supernet("runs/digits/supernet")'
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks and loading in text, "the README has other Python"
    return "\n".join([*blocks, loading.replace("runs/digits", str(RUN))])


def outcome(command: list[str]) -> str:
    """Whether a command works; else the line, or lines, that it ends with."""
    done = subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, text=True, capture_output=True
    )
    return WORKS if done.returncode == 0 else done.stderr.strip() or f"code {done.returncode}"


def write_image(path: Path) -> None:
    from PIL import Image

    Image.new("L", (8, 8), 128).save(path)


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        write_image(Path(scratch, "image.png"))
        for name, (command, wanted) in cases(Path(scratch)).items():
            began = time.monotonic()
            found = outcome(command)
            fine = found == WORKS if wanted == WORKS else re.search(wanted, found) is not None
            failed += not fine
            mark = "" if fine else "WRONG: "
            print(f"{name:45} {time.monotonic() - began:5.0f} s  {mark}{found}", flush=True)
        new = Path(scratch, "new")
        if new.exists():
            failed += 1
            print(f"WRONG: {new} was made by a command that refused its flags")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
