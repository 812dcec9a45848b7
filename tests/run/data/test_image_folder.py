"""Folders of images as people have them: what is used, what is left out, what is refused."""

import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, features
from sklearn.datasets import load_sample_images

from ofa_jax.run.data import image_files, pipeline
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.data.decode import BY_OPENCV, SUFFIXES, decode
from ofa_jax.run.data.image_files import counts, sort_out
from ofa_jax.run.data.image_folder import image_folder
from ofa_jax.run.groups.data import AugmentConfig, DataConfig

PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
HUGE = b"P6 40000 40000 255\n"  # more pixels than OpenCV takes


def write(path, image=PIXELS):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        Image.fromarray(image).save(path)


def load(root, **fields):
    return load_dataset(DataConfig(**{"name": str(root), "held_out": 1, **fields}))


def sizes(dataset):
    return len(dataset.train), len(dataset.held_out), len(dataset.test)


def everything(source):
    return [source[i] for i in range(len(source))]


@pytest.fixture
def photos(tmp_path):
    """Two photographs cut in pieces, as a folder with train and val."""
    for label, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        for split, count in (("train", 8), ("val", 3)):
            for i in range(count):
                piece = photo[20 * i : 20 * i + 100, 30 * i : 30 * i + 120]
                write(tmp_path / split / label / f"{i}.{('jpg', 'png')[i % 2]}", piece)
    return tmp_path


def test_a_folder_of_images(photos):
    dataset = load(photos, held_out=4)
    assert dataset.class_names == ("flower", "temple")
    assert sizes(dataset) == (12, 4, 6)
    assert [e["label"] for e in everything(dataset.test)] == [0, 0, 0, 1, 1, 1]
    assert decode(dataset.test[0]["image"]).shape == (100, 120, 3)
    assert dataset.test.where(4) == f"{photos}/val/temple/1.png (image 4)"
    assert str(dataset).endswith("2 classes; 12 to train, 4 held out, 6 to test")
    flat = load(photos / "train", held_out=2)
    assert sizes(flat) == (12, 2, 2)
    assert "no test split" in str(flat)


def test_a_folder_without_its_dot_is_reported(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    with pytest.raises(ValueError, match=rf"did you mean the folder ./{photos.name}"):
        load_dataset(DataConfig(name=photos.name))
    assert len(load(f"./{photos.name}").train) == 15
    monkeypatch.chdir(photos)
    assert load(".").name == photos.name


# -- suffixes --------------------------------------------------------------------------------------

WRITTEN = {".jfif": "JPEG", ".jpe": "JPEG", ".pnm": "PPM", ".pgm": "PPM", ".pbm": "PPM"}
MODES = {".pgm": "L", ".pbm": "1"}


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".jpe", ".jfif", *BY_OPENCV])
def test_a_suffix_counts_where_the_decoder_reads_it(tmp_path, suffix):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    photo = Image.fromarray(load_sample_images().images[0][:60, :80])
    for label in ("a", "b"):
        for name in (f"1{suffix}", f"2{suffix.upper()}"):
            (tmp_path / label).mkdir(exist_ok=True)
            photo.convert(MODES.get(suffix, "RGB")).save(tmp_path / label / name,
                                                         WRITTEN.get(suffix))  # fmt: skip
        write(tmp_path / label / "3.png")
        write(tmp_path / label / "4.png")
    dataset = load(tmp_path)
    assert ("left out" in str(dataset)) == (suffix not in SUFFIXES)
    assert sum(sizes(dataset)) == (8 if suffix in SUFFIXES else 4)
    data = (tmp_path / f"b/2{suffix.upper()}").read_bytes()
    if suffix in SUFFIXES:
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(decode(data), expected)
    else:
        with pytest.raises(ValueError, match="of a format OpenCV does not read"):
            decode(data)


def test_what_this_opencv_does_not_read_is_left_out(photos, monkeypatch):
    monkeypatch.setattr(image_files, "SUFFIXES", (".jpg",))
    assert str(load(photos)).endswith("; 7 to train, 1 held out, 4 to test; left out: 10 .png")


def test_what_is_left_out_is_counted(photos):
    for name in ("train/flower/notes.txt", "train/temple/a.TXT", "val/temple/a.heic",
                 "train/flower/LICENSE", "train/flower/._0.jpg", "train/.DS_Store",
                 "val/flower/Thumbs.db", "train/temple/deep/er/1.jpg", "train/temple/deep/2.jpg",
                 "train/loose.jpg", "train/list.csv"):  # fmt: skip
        write(photos / name, b"")
    os.mkfifo(photos / "train/flower/pipe.jpg")
    (photos / "train/flower/gone.jpg").symlink_to("nowhere")
    for folder in ("annotations", "__MACOSX/train/flower", ".git", "train/.cache",
                   "train/@eaDir"):  # fmt: skip
        write(photos / folder / "x.jpg")
    dataset = load(photos)
    assert sizes(dataset) == (15, 1, 6)
    summary, left_out = str(dataset).split("; left out: ")
    assert summary.endswith("6 to test; not used: annotations")
    assert sorted(left_out.split(", ")) == [
        "1 .csv", "1 .heic", "1 .jpg outside class folders", "1 without a suffix", "2 .jpg",
        "2 .txt", "2 in nested folders", "3 hidden",
    ]  # fmt: skip


def test_kinds_that_are_many_are_summed_up():
    left = {f".{i}": 10 - i for i in range(10)}
    assert counts(image_files.Counter(left)) == "{}, 3 others".format(
        ", ".join(f"{10 - i} .{i}" for i in range(8))
    )
    assert counts(image_files.Counter()) == ""


def test_one_rule_for_files_and_folders(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.txt", ".d.jpg", "e/f.jpg", "e/g.txt"):
        write(tmp_path / name, b"")
    images, left = sort_out(tmp_path.iterdir())
    assert [path.name for path in images] == ["a.jpg", "b.PNG"]
    assert left == {".txt": 1, "hidden": 1, "in nested folders": 2}


# -- splits ----------------------------------------------------------------------------------------


def test_a_test_folder_without_classes_has_a_way_out(photos):
    write(photos / "test/1.jpg")
    write(photos / "test/2.png")
    with pytest.raises(ValueError) as raised:
        load(photos)
    assert str(raised.value) == (
        f"data.test_split='test' of {photos.name}: {photos}/test has no class folders, but 1 .jpg"
        " outside class folders, 1 .png outside class folders; data.test_split='none' holds out"
        " training images instead"
    )
    dataset = load(photos, test_split="none")
    assert sizes(dataset) == (15, 6, 1)
    assert "no test split, so test images are held out of the training split" in str(dataset)
    assert "not used: test" in str(dataset)
    train, test = ({e["image"] for e in everything(dataset.split(s))} for s in ("train", "test"))
    assert not train & test
    assert sizes(load(photos, test_split="val")) == (15, 1, 6)


def test_other_names_of_splits(photos):
    (photos / "train").rename(photos / "training set")
    (photos / "val").rename(photos / "valid")
    dataset = load(photos, train_split="training set")
    assert sizes(dataset) == (15, 1, 6)
    with pytest.raises(ValueError, match=r"valid lies among .*: say data\.train_split"):
        load(photos)
    with pytest.raises(ValueError, match=r"data.train_split='training': .* has train"):
        load(photos / "valid", train_split="training")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("train/a/1.png", "train/b/"), "train/b has no images (.jpg .jpeg .jpe .jfif .bmp"),
        (("train/a/1.png", "train/b/1.heic"), f"{SUFFIXES[-1]}), but 1 .heic"),
        (("a/1.png",), "expected a folder of images for each class, found a in /"),
        (("train/a/1.png", "val/a/1.png"), "for each class, found a in /"),
        (("train/1.png", "test/1.png"), "for each class, found test, train in /"),
        (("Train/1.png", "Test/1.png"), "for each class, found Test, Train in /"),
        (("1.png", "2.png"), "for each class, found none in /"),
        (("train/a/1.png", "train/b/1.png", "val/B/1.png"), "val/B: there is no such class"),
        (("train/a/1.png", "train/b/1.png", "val/a/"), "val/a has no images"),
        (("a/1.png", "b/1.png", "c\nd/1.png"), "c\\\\nd': its name has line breaks or the like"),
    ],
)
def test_wrong_folders_are_named(tmp_path, files, message):
    for name in files:
        if name.endswith("/"):
            (tmp_path / name).mkdir(parents=True)
        else:
            write(tmp_path / name, b"")
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300 + 2 * len(str(tmp_path))


def test_classes_may_differ_in_case_alone_and_may_be_called_train(tmp_path):
    for name in ("a", "A", "train"):
        write(tmp_path / name / "1.png")
    assert load(tmp_path).class_names == ("A", "a", "train")


@pytest.mark.parametrize("name", ["test", "Validation", "val"])
def test_a_split_among_classes_is_no_class(tmp_path, name):
    """As from Kaggle: test/ without classes beside the classes' own folders."""
    for folder in ("cat", "dog", name):
        write(tmp_path / folder / "1.png")
    with pytest.raises(ValueError, match=f"{name} lies among the folders of classes: say"):
        load(tmp_path)
    (tmp_path / "train").mkdir()
    for folder in ("cat", "dog", name):  # where all are in train, it is one
        (tmp_path / folder).rename(tmp_path / "train" / folder)
    assert load(tmp_path).class_names == tuple(sorted(("cat", "dog", name)))


def test_what_drives_put_into_folders_is_no_class(tmp_path):
    for folder in ("cat", "dog"):
        write(tmp_path / folder / "1.png")
    for folder in ("lost+found", "$RECYCLE.BIN", "System Volume Information", "__pycache__"):
        write(tmp_path / folder / "1.png")
        (tmp_path / "cat" / folder).mkdir()
    write(tmp_path / "cat/THUMBS.DB", b"x")
    dataset = image_folder(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert len(dataset.open("train")) == 2
    assert dataset.left_out["train"] == {"hidden": 5}


# -- names -----------------------------------------------------------------------------------------

NAMES = ("100% 'so' \"so\"", "ü", "猫", "🦉")


@pytest.fixture
def named(tmp_path):
    """Images and classes of many names."""
    for name in NAMES:
        for number in range(2):
            write(tmp_path / "dätä" / name / f"{number};\n%20'ü.png")
    return tmp_path / "dätä"


def test_names_of_any_script(named):
    dataset = load(named)
    assert dataset.class_names == NAMES
    assert str(dataset).startswith("dätä: 4 classes")
    assert dataset.train.where(0) == f"{named}/{NAMES[0]}/0;\\n%20'ü.png (image 0)"
    assert {decode(e["image"]).tobytes() for e in everything(dataset.train)} == {PIXELS.tobytes()}


def test_classes_are_the_same_in_every_locale(named):
    script = (
        "import os; from pathlib import Path;"
        " from ofa_jax.run.data.image_folder import image_folder;"
        f"found = image_folder(Path(os.fsdecode({os.fsencode(named)!r}))); source ="
        " found.open('train'); print(ascii(found.class_names), len(source[0]['image']));"
        " print(ascii(source.where(7)))"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    out = subprocess.check_output([sys.executable, "-c", script], env=environment, encoding="utf-8")
    found = image_folder(named).open("train")
    expected = (ascii(NAMES), len(found[0]["image"]), ascii(found.where(7)))
    assert out == "{} {}\n{}\n".format(*expected)


def test_a_class_that_is_no_utf_8_is_refused(photos):
    os.rename(photos / "train/flower", os.fsencode(photos) + b"/train/m\xfcll")
    with pytest.raises(ValueError, match=r"train/m\\xfcll: its name is not UTF-8, rename it"):
        load(photos)


def test_an_image_that_is_no_utf_8_is_used(photos):
    os.rename(photos / "val/flower/0.jpg", os.fsencode(photos) + b"/val/flower/\xfc.jpg")
    dataset = load(photos)
    assert dataset.test.where(2) == rf"{photos}/val/flower/\xfc.jpg (image 2)"
    assert decode(dataset.test[2]["image"]).shape == (100, 120, 3)


# -- an image that no library takes ----------------------------------------------------------------


def test_an_image_beyond_opencvs_limit_is_named_or_skipped(named, capfd):
    config = DataConfig(name=str(named), held_out=1, batch_size=6, augment=AugmentConfig(pad=0.0))
    dataset = load_dataset(config)
    for path in named.glob("ü/*"):
        path.write_bytes(HUGE)
    place = re.escape(f"corrupt image {named}/ü/") + r"\d;\\n%20'ü.png \(image "
    reason = r"\d\): OpenCV: pixels <= CV_IO_MAX_IMAGE_PIXELS"
    with pytest.raises(ValueError, match=f"^{place}{reason}; data.corrupt='skip' skips"):
        next(pipeline.train_batches(dataset, config, 0))
    skip = DataConfig(**{**vars(config), "corrupt": "skip"})
    batch = next(pipeline.train_batches(dataset, skip, 0))
    lines = capfd.readouterr().err.splitlines()
    assert 1 <= len(lines) <= batch["skipped"].sum()
    assert all(re.fullmatch(f"{place}{reason}: skipped", line) for line in lines)
