"""The TFLite file with weights in float16: half the size; the runtime computes in float32 or 16."""

import contextlib
import io
from pathlib import Path

from ai_edge_quantizer import qtyping, quantizer
from ai_edge_quantizer.algorithm_manager import AlgorithmName

from ofa_jax.deploy import tflite
from ofa_jax.deploy.graph import Graph
from ofa_jax.deploy.tflite import load

__all__ = ["load", "write"]

HALF = qtyping.OpQuantizationConfig(
    weight_tensor_config=qtyping.TensorQuantizationConfig(
        num_bits=16, dtype=qtyping.TensorDataType.FLOAT
    ),
    compute_precision=qtyping.ComputePrecision.FLOAT,
    explicit_dequantize=True,
)


def write(graph: Graph, resolution: int, path: Path, *, batch: int | None = None) -> None:
    """Writes the model as `tflite.write` does, its weights in float16."""
    tflite.write(graph, resolution, path, batch=batch)
    casting = quantizer.Quantizer(path)
    every = qtyping.TFLOperationName.ALL_SUPPORTED
    casting.update_quantization_recipe(".*", every, HALF, AlgorithmName.FLOAT_CASTING)
    with contextlib.redirect_stderr(io.StringIO()):  # one of its bars cannot be turned off
        done = casting.quantize(enable_progress_bar=False, enable_progress_report=False)
    path.write_bytes(done.quantized_model)
