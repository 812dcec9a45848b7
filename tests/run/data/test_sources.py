"""Datasets by name, by folder and as a folder of images; and what is said of those that are not."""

import re
from pathlib import Path

import numpy as np
import pytest
import stand_in

from ofa_jax.errors import InputError
from ofa_jax.run.data import tfds_source
from ofa_jax.run.data.datasets import load_dataset, split_up
from ofa_jax.run.data.decode import decode
from ofa_jax.run.data.sources import ArraySource, Collection
from ofa_jax.run.groups.data import DataConfig

TFDS = Path(__file__).parents[4] / "shared/data/tfds"
real_data = pytest.mark.skipif(not TFDS.is_dir(), reason="no real datasets on this machine")


def everything(dataset):
    """(image bytes, label) of every example of every split."""
    return [
        [(np.asarray(e["image"]).tobytes(), e["label"]) for e in examples(dataset.split(split))]
        for split in ("train", "held_out", "test")
    ]


def examples(source):
    return [source[i] for i in range(len(source))]


def numbered(count):
    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return ArraySource(images, np.arange(count) % 2)


def collection(**sizes):
    return Collection("toy", ("a", "b"), (1, 1, 1), tuple(sizes), lambda s: numbered(sizes[s]))


def test_digits_are_the_real_ones_in_disjoint_splits():
    digits = load_dataset(DataConfig())
    train, held_out, test = everything(digits)
    assert [len(train), len(held_out), len(test)] == [1257, 180, 360]
    # 1,797 images; equal ones in two splits would be a leak (the dataset repeats none).
    assert len({image for image, _ in train + held_out + test}) == 1797
    assert {label for _, label in test} == set(range(10))
    assert digits.train[0]["image"].shape == (8, 8, 1)
    assert max(digits.train[i]["image"].max() for i in range(50)) == 255
    assert everything(load_dataset(DataConfig(held_out=300)))[2] == test
    assert str(digits).startswith("digits: 10 classes, images of 8x8x1; 1257 to train, 180 held")


@pytest.mark.parametrize(
    ("sizes", "fields", "expected"),
    [
        ({"train": 20, "test": 5, "validation": 4}, {}, (20, 4, 5)),
        ({"train": 20, "validation": 4}, {}, (17, 3, 4)),  # ImageNet: validation is the test
        ({"train": 20, "test": 5}, {}, (17, 3, 5)),
        ({"train": 20}, {}, (14, 3, 3)),
        ({"train": 20, "test": 5, "val": 4}, {"test_split": "val"}, (17, 3, 4)),
        ({"train": 20, "test": 5, "valid": 4}, {}, (20, 4, 5)),
        ({"train": 20, "test": 5}, {"test_split": "none"}, (14, 3, 3)),
        ({"train": 20, "test": 5, "val": 4}, {"test_split": "none"}, (17, 4, 3)),
        ({"train": 20, "test": 5, "val": 4}, {"held_out_split": "none"}, (17, 3, 5)),
        ({"train": 20, "test": 5, "x": 4}, {"held_out_split": "x"}, (20, 4, 5)),
        ({"test": 20}, {"train_split": "test"}, (14, 3, 3)),
    ],
)
def test_splits_are_found_or_carved(sizes, fields, expected):
    dataset = split_up(collection(**sizes), DataConfig(held_out=3, **fields))
    assert (len(dataset.train), len(dataset.held_out), len(dataset.test)) == expected
    parts = ("train", "held_out", "test")
    carved = [part for part in parts if part == "train" or len(dataset.split(part)) == 3]
    seen = [int(e["image"][0, 0, 0]) for part in carved for e in examples(dataset.split(part))]
    assert len(set(seen)) == len(seen)
    noted = "no test split" in str(dataset)
    assert noted == (len(dataset.test) == 3)
    again = split_up(collection(**sizes), DataConfig(held_out=3, **fields))
    assert everything(again) == everything(dataset)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_split": "tran"}, "data.train_split='tran': toy has train, test"),
        ({"test_split": "train+tst"}, "data.test_split='train+tst': toy has train, test"),
        ({"test_split": "train"}, "data.test_split='train' has images of data.train_split='train'"),
        ({"held_out_split": "test"}, "data.held_out_split='test' has images of data.test_split="),
        ({"held_out_split": "val"}, "data.held_out_split='val': toy has train, test"),
        ({"train_split": "train[:3]"}, "only splits of tfds can be sliced"),
        ({"held_out": 20}, "data.held_out=20: expected 1 to 19 for toy, which has 20 training"),
        (
            {"test_split": "empty"},
            "data.test_split='empty' of toy has no images; data.test_split='n",
        ),
        ({"train_split": "none"}, "data.train_split='none': toy has train, test, empty"),
    ],
)
def test_wrong_splits_are_named(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        split_up(collection(train=20, test=5, empty=0), DataConfig(**fields))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The stand-in dataset, downloaded and prepared as a user's machine would."""
    root = tmp_path_factory.mktemp("data")
    (root / "tfds").mkdir()
    stop = stand_in.serve(root)
    config = DataConfig(name="stand_in", data_dir=str(root / "tfds"), held_out=10)
    dataset = load_dataset(config)
    stop()
    return config, dataset


def test_a_dataset_is_downloaded_and_prepared_once(prepared):
    config, dataset = prepared
    assert dataset.class_names == stand_in.LABELS
    assert (len(dataset.train), len(dataset.held_out), len(dataset.test)) == (86, 10, 96)
    files = [p.name for p in Path(config.data_dir, "stand_in/1.0.0").iterdir()]
    assert "stand_in-train.array_record-00000-of-00001" in files
    images = stand_in.images()
    found = {decode(e["image"])[..., 0].tobytes(): e["label"] for e in examples(dataset.test)}
    assert found == {image.tobytes(): i % 3 for i, image in enumerate(images)}
    assert set(dataset.train[0]) == {"image", "label"}  # "id" and "box" are dropped
    again = load_dataset(config)  # the server is gone
    assert everything(again) == everything(dataset)
    folder = load_dataset(DataConfig(name=f"{config.data_dir}/stand_in/1.0.0", held_out=10))
    assert everything(folder) == everything(dataset)
    where = dataset.train.where(0)
    assert re.fullmatch(r"stand_in/1.0.0 train\[\d+\] \(in stand_in-train.array_record-.*\)", where)


def test_a_slice_of_a_split(prepared):
    config, _ = prepared
    fields = {**vars(config), "train_split": "train[:50%]+test[:10]", "held_out": 8}
    dataset = load_dataset(DataConfig(**{**fields, "test_split": "test[10:]"}))
    assert (len(dataset.train), len(dataset.test)) == (48 + 10 - 8, 96 - 10)
    with pytest.raises(ValueError, match="data.test_split='test' has images of data.train_split="):
        load_dataset(DataConfig(**fields))


@pytest.mark.parametrize(
    ("test_split", "shared"),
    [("train[80:90]", 0), ("train[:50]+test", 0), ("train[80:]", 0), ("train[79:]", 1),
     ("test+train[60%:70%]", 1), ("train[55:56]", 1), ("train", 1)],
)  # fmt: skip
def test_slices_that_overlap_are_refused(prepared, test_split, shared):
    """Of the 96 images, training takes those from the 50th to the 79th."""
    config, _ = prepared
    fields = {**vars(config), "train_split": "train[50:80]", "test_split": test_split}
    if not shared:
        assert len(load_dataset(DataConfig(**fields)).train) == 20
        return
    with pytest.raises(InputError, match=rf"data.test_split={re.escape(repr(test_split))} has im"):
        load_dataset(DataConfig(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "stand_on"}, "data.name='stand_on' is no dataset of tfds; did you mean stand_in"),
        ({"data_dir": "/nowhere"}, "data.data_dir='/nowhere': there is no such folder"),
        ({"name": "/nowhere"}, "data.name='/nowhere': there is no such folder"),
        ({"name": "stand_in:9.9.9"}, "cannot be loaded at version 9.9.9, only: 1.0.0"),
        ({"image_key": "img"}, "data.image_key='img': stand_in/1.0.0 in "),
        ({"image_key": "id"}, "data.image_key='id' of stand_in/1.0.0 holds no images"),
        ({"label_key": "id"}, "data.label_key='id' of stand_in/1.0.0 holds no classes"),
        ({"train_split": "tran"}, "data.train_split='tran': stand_in/1.0.0 has train, test"),
        ({"train_split": "train[:x]"}, "data.train_split='train[:x]' of stand_in/1.0.0: "),
    ],
)
def test_wrong_datasets_are_named(prepared, fields, message):
    config, _ = prepared
    with pytest.raises(ValueError, match=re.escape(message)):
        load_dataset(DataConfig(**{**vars(config), **fields}))


def test_the_folder_above_a_version_is_reported(prepared):
    config, _ = prepared
    with pytest.raises(ValueError, match=r"give the version's folder, .*/stand_in/1.0.0"):
        load_dataset(DataConfig(name=f"{config.data_dir}/stand_in"))


def test_without_a_network_it_says_so_at_once(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(stand_in.StandIn, "url_infos", {"http://127.0.0.1:9/images.npy": None})
    with pytest.raises(ValueError, match=r"is not in .*, and its host cannot be reached .*refused"):
        load_dataset(DataConfig(name="stand_in", data_dir=str(tmp_path)))


def test_a_package_that_is_missing_to_prepare_is_named(tmp_path, monkeypatch):
    def prepare(*_, **__):
        raise ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setattr(stand_in.StandIn, "download_and_prepare", prepare)
    with pytest.raises(
        ValueError, match="pip install tensorflow, or prepare it on another machine"
    ):
        load_dataset(DataConfig(name="stand_in", data_dir=str(tmp_path)))


@real_data
@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [
        ("cifar10", (32, 32, 3), (49500, 500, 10000)),
        ("imagenette96", (96, 96, 3), (8969, 500, 3925)),
        ("imagenette224", (224, 224, 3), (3051, 500, 981)),
    ],
)
def test_real_datasets(name, shape, sizes):
    dataset = load_dataset(DataConfig(name=name, data_dir=str(TFDS), held_out=500))
    assert (len(dataset.train), len(dataset.held_out), len(dataset.test)) == sizes
    assert dataset.image_shape == shape
    assert len(dataset.class_names) == 10
    for index in (0, 17):
        # What tfds itself decodes, by another library.
        expected = tfds_source.tfds.data_source(name, split="train", data_dir=TFDS)
        original = int(dataset.train.indices[index])
        np.testing.assert_array_equal(
            decode(dataset.train[index]["image"]), expected[original]["image"]
        )
        assert dataset.train[index]["label"] == expected[original]["label"]
