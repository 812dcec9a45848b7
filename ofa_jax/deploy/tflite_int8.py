"""The TFLite file in int8: weights by channel, activations by ranges seen on training images."""

import contextlib
import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_quantizer import quantizer
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import TFLOperationName

from ofa_jax.deploy import tflite
from ofa_jax.deploy.batches import of_size
from ofa_jax.deploy.graph import Graph
from ofa_jax.deploy.tflite import load

__all__ = ["load", "write"]

# Images go in and logits come out as in the other files. XNNPACK has no int8 kernel for HardSwish:
# a net takes twice as long with the runtime's own one as with a float32 one between int8 layers.
IN_FLOAT = (TFLOperationName.INPUT, TFLOperationName.OUTPUT, TFLOperationName.HARD_SWISH)
AT_ONCE = 16  # images: all that a net computes of them is kept
Ranges = dict[str, Any]  # {"min", "max", ...} by the tensor's name


def write(
    graph: Graph, resolution: int, path: Path, batches: Iterable[np.ndarray],
    *, batch: int | None = None, in_float: int = 0,
) -> None:  # fmt: skip
    """Writes the model as `tflite.write` does, calibrated on `batches` of images.

    The first `in_float` layers stay in float32.
    """
    model, values = tflite.build(graph, resolution)
    given = [operator.outputs[0] for operator in model.graph.operators]
    names = [f"value_{tensor}" for tensor in given if tensor <= values[in_float]]
    # To see every layer's values the interpreter keeps them all, and warns of the memory; and the
    # quantizer has progress bars of its own.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.filterwarnings("ignore", ".*experimental_preserve_all_tensors", UserWarning)
        tflite.write(graph, resolution, path)
        ranges = _ranges(_quantizer(path, names), of_size(batches, AT_ONCE))
        tflite.write(graph, resolution, path, batch=batch)
        done = _quantizer(path, names).quantize(
            ranges, enable_progress_bar=False, enable_progress_report=False
        )
    path.write_bytes(done.quantized_model)


def _quantizer(path: Path, names: Sequence[str]) -> quantizer.Quantizer:
    """A quantizer that leaves operators whose outputs have these names in float32."""
    made = quantizer.Quantizer(path)
    made.add_static_config(".*", TFLOperationName.ALL_SUPPORTED, 8, 8)
    for operation in IN_FLOAT:
        made.update_quantization_recipe(".*", operation, algorithm_key=AlgorithmName.NO_QUANTIZE)
    if names:
        made.update_quantization_recipe(
            f"^({'|'.join(names)});$", TFLOperationName.ALL_SUPPORTED,
            algorithm_key=AlgorithmName.NO_QUANTIZE,
        )  # fmt: skip
    return made


def _ranges(made: quantizer.Quantizer, batches: Iterable[np.ndarray]) -> Ranges:
    """The least and the largest value of each tensor.

    The quantizer's own way over several batches is a moving average, which cuts off what few images
    reach: on digits the logits' noise is then 13 dB higher.
    """
    ranges: Ranges = {}
    for images in batches:
        for name, seen in made.calibrate({"serving_default": [{"images": images}]}).items():
            if name in ranges and seen:
                least = np.minimum(seen["min"], ranges[name]["min"])
                largest = np.maximum(seen["max"], ranges[name]["max"])
                seen = {**seen, "min": least, "max": largest}
            ranges[name] = seen
    return ranges
