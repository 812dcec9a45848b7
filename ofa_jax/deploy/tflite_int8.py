"""The TFLite file in int8: weights by channel, activations by ranges seen on training images."""

import contextlib
import io
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from ai_edge_quantizer import quantizer
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import TFLOperationName

from ofa_jax.deploy import tflite
from ofa_jax.deploy.batches import of_size
from ofa_jax.deploy.graph import Graph
from ofa_jax.deploy.tflite import load

__all__ = ["load", "write"]

# Images go in and logits come out as in the other files.
IN_FLOAT = (TFLOperationName.INPUT, TFLOperationName.OUTPUT)


def write(
    graph: Graph, resolution: int, path: Path, batches: Iterable[np.ndarray],
    *, batch: int | None = None,
) -> None:  # fmt: skip
    """Writes the model as `tflite.write` does, calibrated on `batches` of images."""
    tflite.write(graph, resolution, path, batch=batch)
    made = quantizer.Quantizer(path)
    made.add_static_config(".*", TFLOperationName.ALL_SUPPORTED, 8, 8)
    for operation in IN_FLOAT:
        made.update_quantization_recipe(".*", operation, algorithm_key=AlgorithmName.NO_QUANTIZE)
    images = of_size(batches, batch or 1)
    # To see every layer's values the interpreter keeps them all, and warns of the memory; and the
    # quantizer has bars of its own.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.filterwarnings("ignore", ".*experimental_preserve_all_tensors", UserWarning)
        ranges = made.calibrate({"serving_default": [{"images": x} for x in images]})
        done = made.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    path.write_bytes(done.quantized_model)
