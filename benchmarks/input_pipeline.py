"""Images per second of the input pipeline, beside a PyTorch DataLoader on the same cores.

    pip install -e ".[bench]"
    python -m benchmarks.input_pipeline
    python -m benchmarks.input_pipeline --data=imagenette224 --data_dir=FOLDER --batches=10000

Every image is a JPEG that goes through the reference's training transforms: a random resized crop
to 224 px, a flip, brightness and saturation. The DataLoader does it as torchvision does with Pillow
images, once to normalised float32, as the reference's loader gives them, once to uint8, as ours.
Prints the median of the rounds, then the memory of all processes over many batches.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

from benchmarks import harness
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.data.pipeline import train_batches
from ofa_jax.run.data.sources import ArraySource, Dataset, Source
from ofa_jax.run.groups.data import AugmentConfig, DataConfig

harness.needs("psutil", "torch")
import psutil
import torch

SIZE = 224
AUGMENT = AugmentConfig(crop="resized", flip=0.5, brightness=32 / 255, saturation=0.5)
MEAN, STD = torch.tensor(DataConfig().mean), torch.tensor(DataConfig().std)


def photographs(count: int = 512) -> Dataset:
    """Pieces of scikit-learn's two photographs as 224-px JPEG, for when no dataset is given."""
    rng, photos, pieces = np.random.default_rng(0), load_sample_images().images, []
    for i in range(count):
        height, width, _ = photos[i % 2].shape
        top, left = rng.integers(height - SIZE), rng.integers(width - SIZE)
        file = io.BytesIO()
        piece = photos[i % 2][top : top + SIZE, left : left + SIZE]
        Image.fromarray(piece).save(file, "JPEG", quality=75)
        pieces.append(file.getvalue())
    source = ArraySource(np.array(pieces, dtype=object), np.arange(count) % 2, "photographs")
    return Dataset("photographs", source, source, source, ("temple", "flower"), (SIZE, SIZE, 3))


class PillowImages(torch.utils.data.Dataset[Any]):
    """What `ImageFolder` with torchvision's transforms gives, written with Pillow."""

    def __init__(self, source: Source, normalised: bool):
        self.source, self.normalised = source, normalised

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        example = self.source[index]
        image = Image.open(io.BytesIO(example["image"])).convert("RGB")
        image = random_resized_crop(image)
        if torch.rand(()) < AUGMENT.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(jitter(image)))
        if self.normalised:
            pixels = pixels.permute(2, 0, 1).contiguous().float().div_(255)
            pixels = pixels.sub_(MEAN[:, None, None]).div_(STD[:, None, None])
        return pixels, example["label"]


def uniform(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(low, high))


def random_resized_crop(image: Image.Image) -> Image.Image:
    for _ in range(10):
        target = image.width * image.height * uniform(*AUGMENT.area)
        ratio = math.exp(uniform(*(math.log(a) for a in AUGMENT.aspect)))
        width, height = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < width <= image.width and 0 < height <= image.height:
            left = int(torch.randint(image.width - width + 1, ()))
            top = int(torch.randint(image.height - height + 1, ()))
            image = image.crop((left, top, left + width, top + height))
            break
    return image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def jitter(image: Image.Image) -> Image.Image:
    for kind in torch.randperm(2):
        enhance, reach = (
            (ImageEnhance.Brightness, AUGMENT.brightness),
            (ImageEnhance.Color, AUGMENT.saturation),
        )[kind]
        image = enhance(image).enhance(uniform(1 - reach, 1 + reach))
    return image


def data_loader(
    dataset: Dataset, batch_size: int, workers: int, normalised: bool
) -> Generator[Any]:
    loader = torch.utils.data.DataLoader(
        PillowImages(dataset.train, normalised),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="forkserver",  # as ours: forking a process with threads can hang it
        prefetch_factor=4,
    )
    while True:
        yield from loader


def ours(dataset: Dataset, batch_size: int, workers: int, threads: int) -> Generator[Any]:
    config = DataConfig(
        batch_size=batch_size, resolutions=(SIZE,), augment=AUGMENT, workers=workers,
        threads=threads,
    )  # fmt: skip
    return train_batches(dataset, config, seed=0)


def images_per_second(make: Callable[[], Generator[Any]], batch_size: int, seconds: float) -> float:
    with contextlib.closing(make()) as batches:
        for _ in range(8):  # workers start, buffers fill
            next(batches)
        count, began = 0, time.monotonic()
        while time.monotonic() - began < seconds:
            next(batches)
            count += 1
        return count * batch_size / (time.monotonic() - began)


def megabytes() -> float:
    """Resident memory of this process and its workers."""
    me = psutil.Process()
    return sum(p.memory_info().rss for p in [me, *me.children(recursive=True)]) / 2**20


def memory(dataset: Dataset, batches: int, workers: int, threads: int) -> list[tuple[int, float]]:
    """(batches made, memory in MB), ten times on the way."""
    points = []
    with contextlib.closing(ours(dataset, 32, workers, threads)) as iterator:
        for made in range(1, batches + 1):
            next(iterator)
            if made in (100, batches) or made % max(1, batches // 10) == 0:
                points.append((made, megabytes()))
                print(f"  {made:6} batches of 32: {points[-1][1]:.0f} MB", flush=True)
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="", help="a tfds dataset or a folder of JPEG images")
    parser.add_argument("--data_dir", default="", help="where tfds keeps its datasets")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each figure of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--batches", type=int, default=10_000, help="over which memory is measured; 0: none"
    )
    parser.add_argument("--json", default="", help="file to write the figures to")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    config = DataConfig(name=args.data, data_dir=args.data_dir, held_out=100)
    dataset = load_dataset(config) if args.data else photographs()
    versions = {
        n: importlib.metadata.version(n)
        for n in ("grain", "simplejpeg", "opencv-python-headless", "torch", "pillow")
    }
    print(f"{cores} cores ({platform.machine()}), {dataset}, batches of {args.batch_size}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    size = args.batch_size
    kinds: dict[str, Callable[[], Generator[Any]]] = {
        f"PyTorch, {cores} workers, float32": lambda: data_loader(dataset, size, cores, True),
        f"PyTorch, {cores} workers, uint8": lambda: data_loader(dataset, size, cores, False),
        f"ofa_jax, {cores} threads": lambda: ours(dataset, size, 0, cores),
        f"ofa_jax, {cores} workers": lambda: ours(dataset, size, cores, 1),
    }
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(args.rounds):
        for kind, make in kinds.items():
            rates[kind].append(images_per_second(make, size, args.seconds))
            print(f"  round {turn + 1}: {kind}: {rates[kind][-1]:.0f} images/s", flush=True)
    middle = {kind: statistics.median(values) for kind, values in rates.items()}
    slow, lean = list(middle.values())[:2]
    print(f"\n{'':30}{'images/s per core':>18}{'to float32':>12}{'to uint8':>10}")
    for kind, rate in middle.items():
        print(f"{kind:30}{rate / cores:18.0f}{rate / slow:11.2f}x{rate / lean:9.2f}x")
    report = {"cores": cores, "versions": versions, "images_per_second": middle}
    if args.batches:
        for workers, threads in ((0, cores), (cores, 1)):
            print(f"\nmemory, {workers} workers:")
            report[f"megabytes_{workers}_workers"] = memory(dataset, args.batches, workers, threads)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=2)


if __name__ == "__main__":
    main()
