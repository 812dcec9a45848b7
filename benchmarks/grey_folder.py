"""A folder of small grey images by class, from a colour data set that tfds prepared.

    python -m benchmarks.grey_folder --data-dir=FOLDER --name=imagenette96 --out=IMAGES

Writes IMAGES/train/CLASS/*.png and IMAGES/test/CLASS/*.png: squares from the centre, 28 px, grey.
`benchmarks/transfer.py` learns them from a supernet of other images.
"""

import argparse
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds


def square(image: np.ndarray, pixels: int) -> np.ndarray:
    """The square in the centre, grey, at another size."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return cv2.resize(
        grey[top : top + side, left : left + side], (pixels, pixels), interpolation=cv2.INTER_AREA
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # noqa: E501  # fmt: skip
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--name", default="imagenette96")
    parser.add_argument("--splits", default="train,validation", help="to train on, to test on")
    parser.add_argument("--images", default="250,100", help="of each class, in each split")
    parser.add_argument("--pixels", type=int, default=28)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    builder = tfds.builder(args.name, data_dir=args.data_dir)
    names = builder.info.features["label"].names
    counts = map(int, args.images.split(","))
    folders = zip(("train", "test"), args.splits.split(","), counts, strict=True)
    for folder, split, wanted in folders:
        written: Counter[str] = Counter()
        for number, example in enumerate(builder.as_data_source(split=split)):
            if written.total() == wanted * len(names):
                break
            name = names[example["label"]]
            if written[name] < wanted:
                written[name] += 1
                path = Path(args.out, folder, name, f"{number:05d}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), square(example["image"], args.pixels))
        print(f"{folder}: {sum(written.values())} images of {len(written)} classes")


if __name__ == "__main__":
    main()
