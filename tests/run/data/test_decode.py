import io

import numpy as np
import pytest
from PIL import Image, ImageOps, features
from sklearn.datasets import load_sample_images

from ofa_jax.errors import InputError
from ofa_jax.run.data.decode import SUFFIXES, decode

PHOTO = load_sample_images().images[0]


def needs(kind):
    """Skips where this machine's Pillow cannot write a format, or its OpenCV not read it."""
    suffixes = {"AVIF": ".avif", "GIF": ".gif"}
    if (kind == "AVIF" and not features.check("avif")) or suffixes.get(
        kind, ".png"
    ) not in SUFFIXES:
        pytest.skip(f"no {kind} here")


def encoded(kind, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(PHOTO).convert(mode).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("BMP", "RGB"),
     ("WEBP", "RGB"), ("GIF", "P"), ("TIFF", "RGB"), ("TIFF", "CMYK"), ("TIFF", "1"),
     ("PPM", "L"), ("JPEG2000", "RGB"), ("AVIF", "RGB")],
)  # fmt: skip
def test_every_format_gives_what_pillow_reads(kind, mode):
    needs(kind)
    data = encoded(kind, mode)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data), expected)


def test_cmyk_becomes_three_channels():
    assert decode(encoded("JPEG", "CMYK")).shape == PHOTO.shape


def transparent(mode="RGBA"):
    """Black, with a picture in its transparency alone."""
    pixels = np.zeros((*PHOTO.shape[:2], 4), np.uint8)
    pixels[..., 3] = 255 - PHOTO[..., 0]
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [("PNG", "RGBA", {}), ("PNG", "LA", {}), ("WEBP", "RGBA", {"lossless": True}),
     ("TIFF", "RGBA", {}), ("TIFF", "LA", {}), ("JPEG2000", "RGBA", {}),
     ("AVIF", "RGBA", {"quality": 100})],
)  # fmt: skip
def test_white_is_below_what_is_transparent(kind, mode, options):
    needs(kind)
    file = io.BytesIO()
    transparent(mode).save(file, kind, **options)
    lossy, found = 3 if kind == "AVIF" else 0, decode(file.getvalue())
    np.testing.assert_allclose(found, PHOTO[..., :1].repeat(3, 2), atol=lossy)
    assert found.flags.writeable and found.flags.c_contiguous


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_colour_of_a_palette_is_white(kind):
    needs(kind)
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 0, 0, 0, 255])
    file = io.BytesIO()
    image.save(file, kind, transparency=1)
    white = [255, 255, 255]
    expected = [[[255, 0, 0], white], [[0, 0, 255], white]]
    np.testing.assert_array_equal(decode(file.getvalue()), expected)


def test_transparency_of_arrays_and_turned_photographs():
    said = Image.Exif()
    said[0x0112] = 6
    file = io.BytesIO()
    transparent().save(file, "PNG", exif=said)
    expected = np.rot90(PHOTO[..., :1].repeat(3, 2), -1)
    np.testing.assert_array_equal(decode(file.getvalue()), expected)
    np.testing.assert_array_equal(decode(np.asarray(transparent())), PHOTO[..., :1].repeat(3, 2))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_truncated_transparent_files_are_refused(kind):
    needs(kind)
    file = io.BytesIO()
    transparent().save(file, kind)
    data = file.getvalue()
    with pytest.raises(InputError):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 10))
def test_photographs_are_turned_as_the_camera_was_held(kind, orientation):
    said = Image.Exif()
    said[0x0112] = orientation  # 9 means nothing
    data = encoded(kind, exif=said)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    found = decode(data)
    np.testing.assert_array_equal(found, np.asarray(expected))
    assert found.flags.c_contiguous


def test_what_exif_does_not_say_turns_nothing():
    data = encoded("JPEG")
    plain = decode(data)
    nonsense = data[:2] + b"\xff\xe1\x00\x10Exif\0\0nonsense" + data[2:]
    np.testing.assert_array_equal(decode(nonsense), plain)


def test_arrays_are_taken_as_they_are():
    gray = PHOTO[..., :1]
    np.testing.assert_array_equal(decode(gray), np.concatenate([gray] * 3, -1))
    np.testing.assert_array_equal(decode(gray[..., 0]), decode(gray))
    np.testing.assert_array_equal(decode(PHOTO), PHOTO)
    with pytest.raises(ValueError, match="float32 of shape"):
        decode(PHOTO.astype(np.float32))


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF"]
)
def test_truncated_files_are_refused(kind):
    needs(kind)
    data = encoded(kind, "P" if kind == "GIF" else "RGB")
    for cut in (len(data) // 2, len(data) - 2):
        with pytest.raises(ValueError):
            decode(data[:cut])


HUGE = b"P6 40000 40000 255\n"
FLOATS = b"Pf 2 1 -1.0\n" + np.ones(2, np.float32).tobytes()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated, damaged or of a format"),
        (b"hello", "truncated, damaged or of a format"),
        (b"\xff\xd8", "."),
        (b"\xff\xd8\xff\xe0" + b"x" * 100, "."),
        (HUGE, "OpenCV: pixels <= CV_IO_MAX_IMAGE_PIXELS"),
        (FLOATS, "truncated, damaged or of a format"),
    ],
)
def test_garbage_is_refused(data, message):
    with pytest.raises(ValueError, match=message) as raised:
        decode(data)
    assert type(raised.value) is InputError
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("marker", [b"\xff\xdb", b"\xff\xda", b"\xff\xd9"])
def test_stray_bytes_between_complete_parts_are_harmless(marker):
    data = encoded("JPEG")
    place = data.rindex(marker)
    strayed = data[:place] + b"stray" + data[place:]
    np.testing.assert_array_equal(decode(strayed), decode(data))
    with pytest.raises(ValueError, match="extraneous bytes|Premature end"):
        decode(strayed[:-2])
