"""Any image classification dataset of TensorFlow Datasets, read without TensorFlow."""

import difflib
import itertools
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ofa_jax.errors import InputError, foreign
from ofa_jax.files import read_object, read_text, short, shown
from ofa_jax.names import local_path
from ofa_jax.run.data.sources import Collection, Source
from ofa_jax.run.groups.data import DataConfig

NAME = re.compile(r"[\w+-]+(/[\w+.-]+)?(:[\d.*]+|:experimental_latest)?(/\S+)?", re.ASCII)
PROBE_SECONDS = 10


class TfdsSource:
    """One split: encoded images, as they are on disk, and labels; other fields are dropped."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, config: DataConfig):
        self.name, self.split = builder.info.full_name, split
        self.size = builder.info.splits[split].num_bytes
        self.image_key, self.label_key = config.image_key, config.label_key
        feature = builder.info.features[config.image_key]
        encoded = isinstance(feature, tfds.features.Image)
        decoders = {config.image_key: tfds.decode.SkipDecoding()} if encoded else None
        self.examples = builder.as_data_source(split=split, decoders=decoders)
        # Files and how many examples of each the split takes, for messages.
        self.files = [(file, len(taken)) for file, taken in _files(builder, split)]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        example = self.examples[index]
        return {"image": example[self.image_key], "label": int(example[self.label_key])}

    def where(self, index: int, /) -> str:
        left = index
        for file, count in self.files:
            if left < count:
                return f"{self.name} {self.split}[{index}] (in {file})"
            left -= count
        return f"{self.name} {self.split}[{index}]"

    def identity(self) -> str:
        return f"{self.name} {self.split} {self.size} {self.files}"


def by_name(config: DataConfig) -> Collection:
    """A tfds dataset, "name", "name/config" or "name:version"; prepared first if it is not.

    Raises:
      ValueError: an unknown name, a folder that does not exist, or nothing to download from.
    """
    if not NAME.fullmatch(config.name):
        raise InputError(
            f"data.name={shown(config.name)}: expected 'digits', a folder, or a dataset of tfds"
        )
    data_dir = local_path("data.data_dir", config.data_dir) if config.data_dir else None
    if data_dir is not None and not data_dir.is_dir():
        raise InputError(f"data.data_dir={config.data_dir!r}: there is no such folder")
    try:
        builder = tfds.builder(config.name, data_dir=data_dir, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise InputError(_unknown(config.name, data_dir)) from error
    except (ValueError, AssertionError, ImportError) as error:  # its config, version or needs
        raise InputError(f"data.name={config.name!r}: {error}") from error
    if not builder.info.splits:
        _prepare(builder, config)
    return _collection(builder, config)


def from_folder(folder: Path, config: DataConfig) -> Collection:
    """A prepared dataset by its own folder, the one with `dataset_info.json`."""
    for name in ("dataset_info.json", "features.json"):
        read_object(folder / name)
    for path in folder.glob("*.labels.txt"):
        read_text(path)
    what = f"{folder} is no prepared dataset, by dataset_info.json and features.json"
    with foreign(lambda error: f"{what}: {short(error)}"):
        builder = tfds.builder_from_directory(folder)
    return _collection(builder, config)


def _collection(builder: tfds.core.DatasetBuilder, config: DataConfig) -> Collection:
    features, name = builder.info.features, builder.info.full_name
    for field in ("image_key", "label_key"):
        key = getattr(config, field)
        if key not in features:
            have = ", ".join(sorted(features)) or "nothing"
            raise InputError(f"data.{field}={key!r}: {name} in {builder.data_path} has {have}")
    image, label = features[config.image_key], features[config.label_key]
    if len(image.shape or ()) != 3 or image.np_dtype != np.uint8:
        raise InputError(f"data.image_key={config.image_key!r} of {name} holds no images: {image}")
    if not isinstance(label, tfds.features.ClassLabel):
        raise InputError(f"data.label_key={config.label_key!r} of {name} holds no classes: {label}")
    if len(label.names) < 2:
        raise InputError(
            f"data.label_key={config.label_key!r} of {name} in {builder.data_path} has"
            f" {len(label.names)} classes: expected 2 or more"
        )
    if not builder.info.file_format.value == "array_record":
        raise InputError(
            f"{name} in {builder.data_path} is stored as {builder.info.file_format.value}, which"
            " has no random access: prepare it with file_format='array_record'"
        )

    def open_split(split: str) -> Source:
        return TfdsSource(builder, split, config)

    def overlap(split: str, other: str) -> bool:
        pairs = itertools.product(_files(builder, split), _files(builder, other))
        return any(
            file == theirs and range(max(one.start, two.start), min(one.stop, two.stop))
            for (file, one), (theirs, two) in pairs
        )

    return Collection(
        name, tuple(label.names), tuple(image.shape), tuple(builder.info.splits), open_split,
        overlap=overlap,
    )  # fmt: skip


def _files(builder: tfds.core.DatasetBuilder, split: str) -> list[tuple[str, range]]:
    """The files of a split such as "train[:10%]+test", and which of their examples it takes."""
    return [
        (
            Path(part.filename).name,
            range(part.examples_in_shard)[part.skip :][: None if part.take == -1 else part.take],
        )
        for part in builder.info.splits[split].file_instructions
    ]


def _unknown(name: str, data_dir: Path | None) -> str:
    there = [p.name for p in data_dir.iterdir() if p.is_dir()] if data_dir else []
    names = {"digits", *there, *tfds.list_builders(with_community_datasets=False)}
    near = difflib.get_close_matches(name.split("/")[0].split(":")[0], sorted(names), n=3)
    if Path(name).is_dir():
        near = [f"the folder ./{name}", *near]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    prepared = f"; data_dir has {', '.join(sorted(there))}" if there else ""
    return f"data.name={name!r} is no dataset of tfds{hint}{prepared}"


def _prepare(builder: tfds.core.DatasetBuilder, config: DataConfig) -> None:
    """Downloads a dataset and writes it as ArrayRecord, once."""
    where = builder.data_path
    _check_network(builder, config)
    print(f"preparing {builder.info.full_name} in {where}", flush=True)
    try:
        builder.download_and_prepare(file_format="array_record")
    except ImportError as error:
        raise InputError(
            f"data.name={config.name!r} is not in {where}, and to prepare it tfds needs a package"
            f" that is not installed ({error}): pip install tensorflow, or prepare it on another"
            " machine; reading it needs no TensorFlow"
        ) from error
    except (OSError, AssertionError, tfds.download.DownloadError) as error:
        raise InputError(
            f"data.name={config.name!r} cannot be prepared in {where}: {error}"
        ) from error


def _check_network(builder: tfds.core.DatasetBuilder, config: DataConfig) -> None:
    # tfds tries ten times, for minutes, before it says that a host cannot be reached.
    for url in list(builder.url_infos or {})[:1]:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            return  # it answers; tfds may ask in another way
        except (OSError, ValueError) as error:
            raise InputError(
                f"data.name={config.name!r} is not in {builder.data_path}, and its host cannot be"
                f" reached ({getattr(error, 'reason', error)}): set data.data_dir to where it is"
                " prepared, or prepare it on a machine with a network"
            ) from error
