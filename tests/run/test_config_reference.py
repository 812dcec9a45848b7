import dataclasses
import re
from pathlib import Path

import pytest

from configs import digits
from ofa_jax.run.config import check_field, defaults
from ofa_jax.run.config_reference import meanings, reference

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
PHASE = {"kernels": (7,), "expands": (6,), "depths": (3,), "distill": 0.0}


def test_the_page_is_what_the_command_prints():
    assert PAGE.read_text() == reference(), "run what the page's first line says"


def test_the_fields_of_the_example_exist():
    example = re.search(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    found = re.findall(r"--config\.([\w.]+)=", example)
    assert len(found) == 3
    for field in found:
        check_field(digits.get_config(), field)


def fields(config, path=""):
    """Every (full name, value) below a group of a ConfigDict; a phase's is called NAME."""
    for key, value in config.items():
        name = f"{path}{'NAME' if path == 'phases.' else key}"
        if hasattr(value, "items"):
            yield from fields(value, f"{name}.")
        else:
            yield name, value


def test_every_field_is_there_with_its_default():
    rows = [line.split(" | ") for line in reference().splitlines() if line.startswith("| `")]
    documented = {row[0].strip("| `"): row for row in rows}
    found = dict(fields(defaults(curriculum=("full",), phases={"full": PHASE})))
    assert {name for name, row in documented.items() if "](#" not in row[1]} == set(found)
    for name, value in found.items():
        has_no_default = name == "curriculum" or name.removeprefix("phases.NAME.") in PHASE
        assert has_no_default or documented[name][2] == f"`{value!r}`".replace("'", '"'), name
    assert documented["phases.NAME.distill"][2:] == [
        "`1.0`", "weight of the distillation term; 0 trains on labels alone.", "the reference |",
    ]  # fmt: skip
    assert documented["data.augment"][1] == "[group](#dataaugment)"
    assert documented["finetune.lr"][-1] == "ours |"


def documented(text):
    """A dataclass of the fields `rate` and `size`, with such entries."""
    kind = dataclasses.make_dataclass("Made", [("rate", float, 0.1), ("size", int, 1)])
    kind.__doc__ = f"A head.\n\n    Attributes:\n{text}    "
    return kind


def test_entries_are_read():
    text = "      rate: a rate,\n        over: two lines.\n      size: in pixels.\n"
    assert meanings(documented(text)) == {"rate": "a rate, over: two lines.", "size": "in pixels."}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("      rate: a rate.\n", r"Made.size has 0 entries"),
        ("      rate, size: both.\n", r"Made.rate has 0 entries"),
        ("      rate: a.\n      size: b.\n      size: c.\n", r"Made.size has 2 entries"),
        ("      rate: a.\n      size: b.\n      sise: c.\n", r"entry 'sise' .* names no field"),
    ],
)
def test_a_missing_or_surplus_entry_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        meanings(documented(text))
