import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from ofa_jax.data.decode import decode

PHOTO = load_sample_images().images[0]


def encoded(kind, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(PHOTO).convert(mode).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("BMP", "RGB"),
     ("WEBP", "RGB"), ("GIF", "P")],
)  # fmt: skip
def test_every_format_gives_what_pillow_reads(kind, mode):
    data = encoded(kind, mode)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data), expected)


def test_cmyk_and_transparency_become_three_channels():
    assert decode(encoded("JPEG", "CMYK")).shape == PHOTO.shape
    np.testing.assert_array_equal(decode(encoded("PNG", "RGBA")), PHOTO)


def test_orientation_is_left_alone():
    rotated = Image.Exif()
    rotated[0x0112] = 6  # a camera held upright
    assert decode(encoded("JPEG", exif=rotated)).shape == PHOTO.shape


def test_arrays_are_taken_as_they_are():
    gray = PHOTO[..., :1]
    np.testing.assert_array_equal(decode(gray), np.concatenate([gray] * 3, -1))
    np.testing.assert_array_equal(decode(gray[..., 0]), decode(gray))
    np.testing.assert_array_equal(decode(PHOTO), PHOTO)
    with pytest.raises(ValueError, match="float32 of shape"):
        decode(PHOTO.astype(np.float32))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "GIF"])
def test_truncated_files_are_refused(kind):
    data = encoded(kind, "P" if kind == "GIF" else "RGB")
    for cut in (len(data) // 2, len(data) - 2):
        with pytest.raises(ValueError):
            decode(data[:cut])


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8", b"\xff\xd8\xff\xe0" + b"x" * 100])
def test_garbage_is_refused(data):
    with pytest.raises(ValueError):
        decode(data)


@pytest.mark.parametrize("marker", [b"\xff\xdb", b"\xff\xda", b"\xff\xd9"])
def test_stray_bytes_between_complete_parts_are_harmless(marker):
    data = encoded("JPEG")
    place = data.rindex(marker)
    strayed = data[:place] + b"stray" + data[place:]
    np.testing.assert_array_equal(decode(strayed), decode(data))
    with pytest.raises(ValueError, match="extraneous bytes|Premature end"):
        decode(strayed[:-2])
