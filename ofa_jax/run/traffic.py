"""What a TPU program moves between the chip's memory and its cores, by the compiled text.

The compiler's own count adds what stays on the chip, where it keeps arrays between operations: more
than half of it in bfloat16.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator

# An array, such as bf16[128,56,56,24]{0,3,2,1:T(8,128)(2,1)S(1)}; S is where it is: 1 is on the
# chip, as are other low numbers, and none is the memory.
ARRAY = re.compile(r"\b(pred|[bfsu][a-z]*\d+\w*)\[([\d,]*)\](?:\{[^}]*?(S\(\d+\))?\})?")
INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)")
NAME = re.compile(r"%([\w.-]+)")
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$", re.MULTILINE)
BRANCHES = re.compile(r"(?:branch_computations|true_computation|false_computation)=(\{.*?\}|%\S+)")
# These name existing arrays, and the ends of copies whose starts are counted.
NOTHING = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "copy-done",
           "slice-done", "async-done", "after-all", "partition-id"}  # fmt: skip
COPIES = {"copy-start", "slice-start"}


def memory_bytes(text: str, of: Callable[[Iterable[int]], int] = max) -> float:
    """Bytes that a program reads from memory and writes to it; loops are not entered.

    Args:
      text: a TPU program, as `compiled.as_text()` gives it.
      of: which branch of a switch counts; the costliest unless given, as in XLA's operations.
    """
    starts = list(COMPUTATION.finditer(text))
    ends = [start.start() for start in starts[1:]] + [len(text)]
    bodies = {start[1]: text[start.end() : end] for start, end in zip(starts, ends, strict=True)}
    (entry,) = [start[1] for start in starts if start[0].startswith("ENTRY")]
    return float(_moved(bodies, entry, of))


def _moved(bodies: dict[str, str], computation: str, of: Callable[[Iterable[int]], int]) -> int:
    """The bytes of one computation, by the texts of all."""
    shapes: dict[str, str] = {}
    moved = 0
    for line in bodies[computation].splitlines():
        instruction = INSTRUCTION.match(line)
        if instruction is None:
            continue
        name, shape, operation, rest = instruction.groups()
        shapes[name] = shape
        if operation in COPIES:
            moved += _copied(shape)
        elif operation == "conditional":  # what it takes and gives is passed on where it is
            branches = NAME.findall(" ".join(BRANCHES.findall(rest)))
            moved += of(_moved(bodies, branch, of) for branch in branches)
        elif operation not in NOTHING:
            operands = NAME.findall(rest[: _closing(rest)])
            arrays = (shape, *(shapes.get(operand, "") for operand in operands))
            moved += sum(size for each in arrays for size, on_chip in _arrays(each) if not on_chip)
    return moved


def _copied(shape: str) -> int:
    """The bytes of a copy that pass the memory's door, from or to it; twice within the memory."""
    (one, one_on_chip), (other, other_on_chip) = list(_arrays(shape))[:2]
    return min(one, other) * ((not one_on_chip) + (not other_on_chip))


def _arrays(shape: str) -> Iterator[tuple[int, bool]]:
    """Bytes of each array of a shape, and whether it is on the chip."""
    for kind, dimensions, space in ARRAY.findall(shape):
        bits = 8 if kind == "pred" else int(re.findall(r"\d+", kind)[0])
        yield math.prod(int(n) for n in dimensions.split(",") if n) * bits // 8, bool(space)


def _closing(text: str) -> int:
    """Where the parenthesis closes that is open at the start."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return place
    return len(text)
