"""PNG, JPEG and TIFF: grey of every kind, grey in disguise, orientation, polarity and what is refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageFile, PngImagePlugin

from medssl.data.formats import READERS, Image, Item, Reject

READER = READERS["raster"]
GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
DEEP = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2700 + 3
ORIENTATION = 274


def read(tmp_path, name="image.png") -> Image | Reject:
    (found,) = READER.read(tmp_path, Item(name))
    return found


def _tiff(pixels: np.ndarray, order: str, photometric: int, sample_format: int = 1, bits: int | None = None) -> bytes:
    """An uncompressed grey TIFF of one strip, written by hand."""
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    rows, columns = pixels.shape
    entries = [
        (256, columns),
        (257, rows),
        (258, bits or 8 * pixels.dtype.itemsize),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, rows),
        (279, len(data)),
        (339, sample_format),
    ]
    directory = struct.pack(f"{order}H", len(entries))
    for tag, value in entries:
        directory += struct.pack(f"{order}HHII", tag, 4, 1, value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    return head + data + directory + b"\0" * 4


@pytest.mark.parametrize(("name", "syntax"), [("image.png", "PNG"), ("image.tif", "TIFF")])
def test_grey_of_8_and_16_bits_is_exact(tmp_path, name, syntax):
    for pixels, highest in ((GREY, 255.0), (DEEP, 65535.0)):
        Pillow.fromarray(pixels).save(tmp_path / name)
        image = read(tmp_path, name)
        assert np.array_equal(image.pixels, pixels)
        assert image.pixels.dtype == pixels.dtype
        assert image.full_range == (0.0, highest)
        assert (image.slope, image.intercept, image.window, image.inverted) == (1.0, 0.0, None, False)
        assert image.syntax == syntax
        assert image.decoder.startswith("pillow ")


def test_jpeg(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    Pillow.fromarray(smooth).save(tmp_path / "image", "JPEG", quality=95)
    image = read(tmp_path, "image")
    assert image.syntax == "JPEG"
    assert np.abs(image.pixels.astype(int) - smooth).max() <= 3


def test_one_bit_is_black_and_white(tmp_path):
    Pillow.fromarray(GREY > 100).save(tmp_path / "image.png")
    assert np.array_equal(read(tmp_path).pixels, (GREY > 100) * np.uint8(255))


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_in_both_byte_orders(tmp_path, order):
    for pixels in (GREY, DEEP):
        (tmp_path / "x").write_bytes(_tiff(pixels, order, photometric=1))
        image = read(tmp_path, "x")
        assert np.array_equal(image.pixels, pixels)
        assert image.pixels.dtype == pixels.dtype
        assert image.pixels.dtype.isnative


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_white_is_zero_comes_out_once_inverted(tmp_path, compression):
    """Shown value = highest - stored, whether Pillow inverts (8 bits) or leaves it to the flag (16 bits)."""
    for pixels, highest in ((GREY, 255), (DEEP, 65535)):
        path = tmp_path / "x.tif"
        if compression is None:
            path.write_bytes(_tiff(pixels, "<", photometric=0))
        else:
            Pillow.fromarray(pixels).save(path, compression=compression, tiffinfo={262: 0})
        with Pillow.open(path) as file:
            assert file.tag_v2[262] == 0
        image = read(tmp_path, "x.tif")
        stored = pixels if compression is None else _stored_by_pillow(pixels)
        shown = highest - image.pixels.astype(int) if image.inverted else image.pixels.astype(int)
        assert np.array_equal(shown, highest - stored.astype(int))


def _stored_by_pillow(pixels: np.ndarray) -> np.ndarray:
    # Asked to write WhiteIsZero, Pillow stores 8-bit pixels inverted, so that they are shown as given, and 16-bit ones as they are.
    return 255 - pixels if pixels.dtype == np.uint8 else pixels


def test_white_is_zero_of_16_bits_in_big_endian_is_refused_rather_than_wrong(tmp_path):
    (tmp_path / "x.tif").write_bytes(_tiff(DEEP, ">", photometric=0))
    found = read(tmp_path, "x.tif")
    assert isinstance(found, Reject) or found.inverted


def test_signed_tiff(tmp_path):
    pixels = DEEP.astype(np.int32).astype(np.int16) - 1000
    (tmp_path / "x.tif").write_bytes(_tiff(pixels, "<", photometric=1, sample_format=2))
    image = read(tmp_path, "x.tif")
    assert np.array_equal(image.pixels, pixels)
    assert (image.pixels.dtype, image.full_range) == (np.int16, (-32768.0, 32767.0))


@pytest.mark.parametrize(
    ("pixels", "sample_format", "reason"),
    [
        (GREY.astype(np.uint32), 1, "unsupported_type"),
        (GREY.astype(np.int8), 2, "unsupported_type"),
        (GREY.astype(np.float32), 3, "unsupported_type"),
        (np.where(GREY == 30, np.nan, GREY).astype(np.float32), 3, "non_finite"),
        (np.where(GREY == 30, np.inf, GREY).astype(np.float32), 3, "non_finite"),
        (np.full((3, 3), 7, np.uint8), 1, "constant"),
    ],
)
def test_tiff_types_that_are_refused(tmp_path, pixels, sample_format, reason):
    (tmp_path / "x.tif").write_bytes(_tiff(pixels, "<", photometric=1, sample_format=sample_format))
    assert read(tmp_path, "x.tif").reason == reason


def test_grey_in_colour_files_is_grey(tmp_path):
    grey = Pillow.fromarray(GREY)
    for mode in ("RGB", "RGBA", "LA", "P"):
        grey.convert(mode).save(tmp_path / "image.png")
        assert np.array_equal(read(tmp_path).pixels, GREY), mode
    grey.convert("CMYK").save(tmp_path / "image.tif")
    assert np.array_equal(read(tmp_path, "image.tif").pixels, GREY)


def test_chroma_noise_is_grey_and_colour_is_not(tmp_path):
    channels = np.stack([GREY] * 3, axis=-1)
    for shift, expected in ((2, "image"), (3, "colour")):
        Pillow.fromarray(channels + np.array([0, 0, shift], np.uint8)).save(tmp_path / "image.png")
        found = read(tmp_path)
        assert ("image" if isinstance(found, Image) else found.reason) == expected


def test_a_palette_of_colours_is_colour(tmp_path):
    image = Pillow.fromarray(GREY, mode=None).convert("P")
    image.putpalette([value for index in range(256) for value in (index, 0, 255 - index)])
    image.save(tmp_path / "image.png")
    assert read(tmp_path).reason == "colour"


def test_a_palette_in_reverse_is_followed(tmp_path):
    image = Pillow.fromarray(GREY).convert("P")
    image.putpalette([255 - index for index in range(256) for _ in range(3)])
    image.save(tmp_path / "image.png")
    assert np.array_equal(read(tmp_path).pixels, 255 - GREY)


def test_transparency_is_refused(tmp_path):
    alpha = np.full_like(GREY, 255)
    alpha[0, 0] = 254
    Pillow.merge("LA", (Pillow.fromarray(GREY), Pillow.fromarray(alpha))).save(tmp_path / "image.png")
    assert read(tmp_path).reason == "alpha"
    for pixels in (GREY, DEEP):
        Pillow.fromarray(pixels).save(tmp_path / "image.png", transparency=int(pixels[1, 1]))
        assert read(tmp_path).reason == "alpha"
        Pillow.fromarray(pixels).save(tmp_path / "image.png", transparency=7)
        assert np.array_equal(read(tmp_path).pixels, pixels)


def test_16_bit_colour_is_not_cut_to_8(tmp_path):
    channels = np.stack([DEEP] * 3, axis=-1).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in channels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 6, 4, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert read(tmp_path).reason == "unsupported_type"


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, -1), (8, 1)])
@pytest.mark.parametrize("name", ["image.png", "image.tif", "image.jpg"])
def test_orientation_is_followed_once(tmp_path, name, orientation, turn):
    smooth = np.add.outer(np.arange(40) * 4, np.arange(24)).astype(np.uint8)
    for pixels in (smooth, smooth.astype(np.uint16) * 200):
        if pixels.dtype == np.uint16 and name.endswith("jpg"):
            continue
        exif = Pillow.Exif()
        exif[ORIENTATION] = orientation
        Pillow.fromarray(pixels).save(tmp_path / name, exif=exif)
        image = read(tmp_path, name)
        expected = np.rot90(pixels, turn)
        assert image.pixels.shape == expected.shape
        assert np.abs(image.pixels.astype(int) - expected).max() <= (4 if name.endswith("jpg") else 0)


def test_pages_and_animations_are_refused(tmp_path):
    frames = [Pillow.fromarray(GREY), Pillow.fromarray(255 - GREY)]
    for name in ("image.tif", "image.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert read(tmp_path, name).reason == "multi_frame"


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    for side, reason in ((16385, "too_large"), (60000, "too_large")):
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        chunk = b"IHDR" + header
        content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / "image.png").write_bytes(content + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
        assert read(tmp_path).reason == reason


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.png", {}),
        ("x.jpg", {}),
        ("x.tif", {}),
        ("x.tif", {"compression": "tiff_lzw"}),
        ("x.tif", {"compression": "tiff_adobe_deflate"}),
    ],
)
def test_a_cut_file_is_never_another_image(tmp_path, name, options, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as other libraries leave it
    noise = np.random.default_rng(0).integers(0, 256, (50, 70), np.uint8)
    Pillow.fromarray(noise).save(tmp_path / name, **options)
    whole, reference = (tmp_path / name).read_bytes(), read(tmp_path, name).pixels
    reasons = set()
    for length in [*range(20, len(whole), max(len(whole) // 60, 1)), len(whole) - 1]:
        (tmp_path / name).write_bytes(whole[:length])
        found = read(tmp_path, name)
        if isinstance(found, Image):
            assert np.array_equal(found.pixels, reference)
            assert length > 0.98 * len(whole)
        else:
            reasons.add(found.reason)
    assert "truncated" in reasons
    assert reasons <= {"truncated", "undecodable"}
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_foreign_content_under_a_raster_name(tmp_path):
    for name, content in {"a.png": b"<html>", "b.tif": b"", "c.jpg": b"\0" * 128 + b"DICM"}.items():
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path, name).reason == "not_raster"


def test_find_goes_by_name_or_content(tmp_path):
    Pillow.fromarray(GREY).save(tmp_path / "no_suffix", "PNG")
    Pillow.fromarray(GREY).save(tmp_path / "scan.JPG", "JPEG")
    (tmp_path / "labels.csv").write_text("file,label\n")
    (tmp_path / "page.png").write_text("<html>")
    assert [item.path for item in READER.find(tmp_path)] == ["no_suffix", "page.png", "scan.JPG"]
    assert READER.find(tmp_path, ["*.JPG"]) == [Item("scan.JPG")]


def test_text_in_a_png_is_not_read(tmp_path):
    note = PngImagePlugin.PngInfo()
    note.add_text("Patient", "Doe^Jane")
    Pillow.fromarray(GREY).save(tmp_path / "image.png", pnginfo=note)
    assert "Doe" not in repr(read(tmp_path))


def test_real_radiographs(shared_data):
    """Kermany's files are RGB JPEGs of 224 pixels with grey content."""
    root = shared_data / "kermany_cxr" / "images"
    items = READER.find(root)
    assert len(items) == 5856
    for item in items[::400]:
        (image,) = READER.read(root, item)
        assert (image.pixels.shape, image.pixels.dtype) == ((224, 224), np.uint8)
        assert (image.syntax, image.full_range, image.inverted) == ("JPEG", (0.0, 255.0), False)
        with Pillow.open(root / item.path) as file:
            channels = np.asarray(file.convert("RGB")).astype(int)
        assert np.abs(channels.mean(axis=2) - image.pixels).max() <= 1


def test_real_stained_tissue_is_colour(shared_data):
    root = shared_data / "breakhis_tiles"
    items = READER.find(root)
    assert len(items) == 78
    assert {READER.read(root, item)[0].reason for item in items[::10]} == {"colour"}
