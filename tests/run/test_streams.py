"""Standard streams that go away end printing, not the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STREAMS = Path(__file__).parents[2] / "ofa_jax" / "run" / "streams.py"
# The file by itself: the package would import JAX.
PROGRAM = f"""
import os, runpy, sys
runpy.run_path({str(STREAMS)!r})["make_lasting"]()
for number in range(20):
    print("line", number, flush=True)
os.write(1, b"native\\n")
print("said", file=sys.stderr)
with open(sys.argv[1], "w") as file:
    file.write("kept")
print(sys.stdin.read(), end="")
sys.exit(7)
"""


def run(shell, path, **environment):
    command = ["bash", "-c", f"set -o pipefail; {shell}", "bash", sys.executable, "-c", PROGRAM]
    return subprocess.run(
        [*command, str(path)], capture_output=True, text=True, input="typed", env=environment
    )


@pytest.mark.parametrize(
    ("shell", "out", "error"),
    [
        ('"$@"', 22, []),
        ('"$@" > /dev/full', 0,
         ["standard output is gone (No space left on device): the run continues without it"]),
        ('"$@" > /dev/full 2>&1', 0, None),
        ('"$@" >&-', 0, []),
        ('"$@" 2>&-', 22, None),
        ('"$@" <&- >&- 2>&-', 0, None),
    ],
)  # fmt: skip
def test_the_process_goes_on_to_its_end(tmp_path, shell, out, error):
    end = run(shell, tmp_path / "file")
    assert end.returncode == 7, end
    assert len(end.stdout.splitlines()) == out
    assert end.stderr.splitlines() == ([] if error is None else [*error, "said"])
    assert (tmp_path / "file").read_text() == "kept"  # and nothing else: no stream's text


def test_a_reader_that_is_gone(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    end = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "file")],
        stdout=writer, stderr=subprocess.PIPE, text=True, input="", env={},
    )  # fmt: skip
    os.close(writer)
    assert end.returncode == 7, end
    gone = "standard output is gone (Broken pipe): the run continues without it"
    assert end.stderr.splitlines() == [gone, "said"]
    assert (tmp_path / "file").read_text() == "kept"


def test_what_an_encoding_lacks_is_escaped(tmp_path):
    program = PROGRAM.replace('print("said"', 'print("τ 手", flush=True); print("said"')
    end = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "file")],
        capture_output=True, text=True, input="", env={"PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert end.returncode == 7, end
    assert "\\u03c4 \\u624b" in end.stdout


def test_a_line_is_written_when_it_is_printed():
    """Into a log file, too: a process that is killed loses none."""
    program = f"""
import os, runpy
runpy.run_path({str(STREAMS)!r})["make_lasting"]()
print("line")
os._exit(0)
"""
    end = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert end.stdout == "line\n"
