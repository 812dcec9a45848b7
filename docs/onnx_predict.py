"""Classes of images by an exported subnet, with nothing but onnxruntime, NumPy and Pillow.

    python docs/onnx_predict.py runs/digits/subnets/small photos/*.jpg

For servers and devices without jax: copy `card.json`, `model.onnx` and this file there. It takes
files exported with and without --uint8; --format=onnx-int8 names another than the float32 one.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main() -> None:
    """Prints the likeliest classes of each image and their probabilities, a line an image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("subnet", type=Path, help="its directory, with card.json and the file")
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--format", default="onnx")
    parser.add_argument("--top", type=int, default=5)
    args = parser.parse_args()
    card = json.loads((args.subnet / "card.json").read_text(encoding="utf-8"))
    made = card["exports"][args.format]
    session = onnxruntime.InferenceSession(args.subnet / made["file"])
    for path in args.images:
        pixels = read_image(path, card)[None]
        (logits,) = session.run(None, {"images": as_input(pixels, card, made)})
        shares = softmax(logits[0])
        best = np.argsort(-shares, kind="stable")[: args.top]
        shown = "  ".join(f"{card['classes'][i]} {shares[i]:.2%}" for i in best)
        print(f"{path}  {shown}")


def read_image(path: Path, card: dict[str, Any]) -> np.ndarray:
    """Pixels `[resolution, resolution, 3]`: the shorter side resized, the centre cut out."""
    image = on_white(ImageOps.exif_transpose(Image.open(path)))
    shorter, size = card["preprocessing"]["resize_shorter_side"], card["resolution"]
    width, height = image.size
    if width < height:
        image = image.resize((shorter, int(shorter * height / width)), Image.Resampling.BILINEAR)
    else:
        image = image.resize((int(shorter * width / height), shorter), Image.Resampling.BILINEAR)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def on_white(image: Image.Image) -> Image.Image:
    """RGB, with white below what is transparent."""
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def as_input(pixels: np.ndarray, card: dict[str, Any], made: dict[str, Any]) -> np.ndarray:
    """Pixels `[batch, height, width, 3]` as the file takes them."""
    if made["input"].startswith("uint8"):
        return pixels
    mean, std = (np.float32(card["preprocessing"][key]) for key in ("mean", "std"))
    return ((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits `[classes]`."""
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


if __name__ == "__main__":
    main()
