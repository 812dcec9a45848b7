"""What a file of less precision costs and saves, and whether it pays: for a card's README."""

import statistics

from ofa_jax.run.card import Card

RUNTIMES = {
    "onnx": "ONNX Runtime", "onnx-fp16": "ONNX Runtime fp16", "onnx-int8": "ONNX Runtime int8",
    "tflite": "LiteRT", "tflite-fp16": "LiteRT fp16", "tflite-int8": "LiteRT int8",
}  # fmt: skip
DROP = 0.01  # of top-1; more than this is not worth a smaller file
FASTER = 0.95  # of float32's time; timings differ by some percent anyway


def summary(card: Card, name: str) -> str:
    """Accuracy, noise, size and time beside float32, and what follows; "" for a float32 file."""
    made = card.exports[name]
    if name not in RUNTIMES or made.snr_db is None or "test" not in card.accuracy:
        return ""
    before, after = card.accuracy["test"]["top1"], made.accuracy["top1"]
    facts = f"Top-1 {after:.2%} on test, {before:.2%} in float32; logits {made.snr_db:.0f} dB"
    facts += " over their noise"
    if made.in_float:
        facts += f", the first {made.in_float} layers in float32"
    plain = card.exports.get(name.split("-")[0])
    if plain and plain.bytes:
        facts += f"; {made.bytes / plain.bytes:.2f} times the size"
    time = relative_time(card, name)
    if time is None:
        verdict = "`--mode=benchmark` says whether it is faster."
    elif time <= FASTER:
        verdict = f"{time:.2f} times float32's time at batch 1."
    else:
        verdict = (
            f"No faster here, {time:.2f} times float32's time at batch 1: it saves size alone."
        )
    if before - after > DROP:
        verdict += f" **It loses {100 * (before - after):.1f} points: prefer float32.**"
    return f"{facts}. {verdict}"


def relative_time(card: Card, name: str) -> float | None:
    """A file's time at batch 1 over float32's in the same runtime, the median over threads.

    `None` where either has not been timed.
    """
    times = {(row.runtime, row.threads): row.median_ms for row in card.latency if row.batch == 1}
    own, plain = RUNTIMES[name], RUNTIMES[name.split("-")[0]]
    ratios = [
        ms / times[plain, threads]
        for (runtime, threads), ms in times.items()
        if runtime == own and times.get((plain, threads))
    ]
    return statistics.median(ratios) if ratios else None
