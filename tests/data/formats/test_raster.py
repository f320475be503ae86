"""PNG, JPEG and TIFF: grey of every kind, grey in disguise, orientation, polarity and what is refused."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageFile, PngImagePlugin

from medssl.data.formats import READERS, Image, Item, Reject, raster, raster_pixels
from medssl.data.formats.options import ReadOptions

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
    assert {found.reason for item in items[::10] for found in READER.read(root, item)} == {"colour"}


# Colour

COLOURS = np.stack([GREY, 255 - GREY, np.roll(GREY, 3)], axis=-1)
RGB = ReadOptions(channels="rgb")


def read_rgb(tmp_path, name="image.png") -> Image | Reject:
    (found,) = READER.read(tmp_path, Item(name), (), RGB)
    return found


@pytest.mark.parametrize(("name", "options"), [("image.png", {}), ("image.tif", {}), ("image.tif", {"compression": "tiff_lzw"})])
def test_colour_is_exact(tmp_path, name, options):
    Pillow.fromarray(COLOURS).save(tmp_path / name, **options)
    image = read_rgb(tmp_path, name)
    assert np.array_equal(image.pixels, COLOURS)
    assert (image.pixels.dtype, image.full_range, image.inverted) == (np.uint8, (0.0, 255.0), False)


def test_grey_among_colour_images_has_equal_channels(tmp_path):
    for mode in ("L", "P", "LA", "RGBA", "1"):
        Pillow.fromarray(GREY).convert(mode).save(tmp_path / "image.png")
        expected = np.asarray(Pillow.fromarray(GREY).convert("1").convert("L")) if mode == "1" else GREY
        assert np.array_equal(read_rgb(tmp_path).pixels, np.stack([expected] * 3, axis=-1)), mode


def test_deep_grey_among_colour_images_is_refused(tmp_path):
    Pillow.fromarray(DEEP).save(tmp_path / "image.png")
    found = read_rgb(tmp_path)
    assert (found.reason, found.detail) == ("unsupported_type", "grey of 16 bits in a set of colour images")


def test_colour_with_transparent_pixels_is_refused_and_opaque_is_not(tmp_path):
    for value, expected in ((255, None), (254, "alpha")):
        alpha = np.full(GREY.shape, 255, np.uint8)
        alpha[2, 3] = value
        Pillow.fromarray(np.dstack([COLOURS, alpha])).save(tmp_path / "image.png")
        found = read_rgb(tmp_path)
        assert getattr(found, "reason", None) == expected
        if expected is None:
            assert np.array_equal(found.pixels, COLOURS)
    Pillow.fromarray(COLOURS).save(tmp_path / "image.png", transparency=tuple(map(int, COLOURS[1, 1])))
    assert read_rgb(tmp_path).reason == "alpha"
    Pillow.fromarray(COLOURS).save(tmp_path / "image.png", transparency=(1, 2, 3))
    assert np.array_equal(read_rgb(tmp_path).pixels, COLOURS)


def test_one_colour_is_constant_and_two_are_not(tmp_path):
    flat = np.full((4, 6, 3), (10, 200, 30), np.uint8)
    Pillow.fromarray(flat).save(tmp_path / "image.png")
    assert read_rgb(tmp_path).reason == "constant"
    flat[0, 0, 2] += 1
    Pillow.fromarray(flat).save(tmp_path / "image.png")
    assert np.array_equal(read_rgb(tmp_path).pixels, flat)


def test_adobes_inverted_cmyk(tmp_path):
    """Photoshop stores 255 for no ink. Pillow writes the same, with the marker that says so."""
    inks = np.zeros((64, 64, 4), np.uint8)
    inks[:32, :, 0], inks[32:, :, 1] = 255, 255
    cmyk = Pillow.merge("CMYK", [Pillow.fromarray(np.ascontiguousarray(inks[..., k])) for k in range(4)])
    cmyk.save(tmp_path / "image.jpg", quality=100)
    cmyk.save(tmp_path / "image.tif")
    for name in ("image.jpg", "image.tif"):
        pixels = read_rgb(tmp_path, name).pixels.astype(int)
        assert np.abs(pixels[8] - (0, 255, 255)).max() <= 8, name
        assert np.abs(pixels[56] - (255, 0, 255)).max() <= 8, name
    content = (tmp_path / "image.jpg").read_bytes()
    place = content.index(b"\xff\xee\x00\x0eAdobe")
    assert content[place + 15] == 0  # CMYK, not YCCK
    (tmp_path / "image.jpg").write_bytes(content[:place] + content[place + 16 :])
    found = read_rgb(tmp_path, "image.jpg")
    assert (found.reason, found.detail[:18]) == ("unsupported_type", "CMYK without Adobe")


def test_ycck(tmp_path):
    """The components of a CMYK file called YCCK: the first three are turned from YCbCr to RGB, the ink that they then name."""
    inks = [Pillow.new("L", (64, 64), value) for value in (0, 0, 0, 0)]
    inks[0].paste(60, (0, 0, 32, 64))
    Pillow.merge("CMYK", inks).save(tmp_path / "image.jpg", quality=100)
    content = bytearray((tmp_path / "image.jpg").read_bytes())
    place = content.index(b"\xff\xee\x00\x0eAdobe")
    content[place + 15] = 2
    (tmp_path / "image.jpg").write_bytes(content)
    pixels = read_rgb(tmp_path, "image.jpg").pixels[32, [16, 48]].astype(float)
    # Stored: Y is 255 - cyan, Cb and Cr are 255. Adobe's ink is the RGB of that (JFIF), and what is shown is 255 - ink.
    for shown, luma in zip(pixels, (195, 255), strict=True):
        expected = 255 - np.clip([luma + 1.402 * 127, luma - 0.344 * 127 - 0.714 * 127, luma + 1.772 * 127], 0, 255)
        assert np.abs(shown - expected).max() <= 6


def test_lab_tiff(tmp_path):
    """L* of 0 to 100 over 0 to 255, a* and b* signed: neutral greys come out neutral, +a* is red, +b* is yellow."""
    lab = np.zeros((30, 20, 3), np.uint8)
    lab[..., 0] = np.linspace(40, 230, 30).astype(np.uint8)[:, None]
    for part, (a, b) in enumerate(((0, 0), (50, 0), (0, 50), (256 - 50, 0))):
        lab[:, part * 5 : part * 5 + 5, 1:] = a, b
    (tmp_path / "image.tif").write_bytes(_tiff_of_samples(lab, photometric=8))
    pixels = read_rgb(tmp_path, "image.tif").pixels.astype(int)
    neutral = pixels[:, 2]
    assert (np.ptp(neutral, axis=1) <= 3).all()
    assert (np.diff(neutral[:, 0]) > 0).all()
    red, yellow, green = pixels[15, 7], pixels[15, 12], pixels[15, 17]
    assert red[0] > red[1] + 40
    assert yellow[2] < yellow[0] - 40
    assert green[0] < green[1] - 40


def _tiff_of_samples(pixels: np.ndarray, photometric: int) -> bytes:
    rows, columns, samples = pixels.shape
    data = pixels.tobytes()
    entries = [(256, columns), (257, rows), (258, 8 + len(data)), (259, 1), (262, photometric), (273, 8), (277, samples)]
    entries += [(278, rows), (279, len(data)), (284, 1)]
    directory = struct.pack("<H", len(entries))
    for tag, value in entries:
        directory += struct.pack("<HHII", tag, *((3, 3) if tag == 258 else (4, 1)), value)
    return b"II*\0" + struct.pack("<I", 8 + len(data) + 6) + data + struct.pack("<3H", 8, 8, 8) + directory + b"\0" * 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_colour_is_turned_too(tmp_path, orientation):
    exif = Pillow.Exif()
    exif[ORIENTATION] = orientation
    for name in ("image.png", "image.tif"):
        Pillow.fromarray(COLOURS).save(tmp_path / name, exif=exif)
        turns = {
            2: np.fliplr,
            3: lambda p: np.rot90(p, 2),
            4: np.flipud,
            5: lambda p: p.transpose(1, 0, 2),
            6: lambda p: np.rot90(p, -1),
        }
        turns |= {1: lambda p: p, 7: lambda p: np.rot90(p.transpose(1, 0, 2), 2), 8: np.rot90}
        assert np.array_equal(read_rgb(tmp_path, name).pixels, turns[orientation](COLOURS)), name


def test_grey_of_is_pillows_luminance():
    near = np.random.default_rng(0).integers(0, 256, (300, 200, 1)) + np.random.default_rng(1).integers(-1, 2, (300, 200, 3))
    near = np.clip(near, 0, 255).astype(np.uint8)
    assert np.array_equal(raster_pixels.grey_of(near), np.asarray(Pillow.fromarray(near).convert("L")))


def test_members_of_archives(tmp_path):
    buffers = {}
    for name, pixels, form in (("a/grey.png", GREY, "PNG"), ("deep.tif", DEEP, "TIFF"), ("scan", GREY, "TIFF")):
        buffer = io.BytesIO()
        Pillow.fromarray(pixels).save(buffer, form, **({"compression": "tiff_lzw"} if form == "TIFF" else {}))
        buffers[name] = buffer.getvalue()
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in buffers.items():
            archive.writestr(name, content)
        archive.writestr("labels.csv", "file,label")
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for name, content in buffers.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    items = READER.find(tmp_path)
    assert [item.path for item in items] == [f"set.{kind}!/{name}" for kind in ("tar", "zip") for name in sorted(buffers)]
    for item in items:
        (image,) = READER.read(tmp_path, item)
        assert np.array_equal(image.pixels, DEEP if "deep" in item.path else GREY)


# Cost


def _jpeg_of_scans(scans: int) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(COLOURS).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    place = content.index(b"\xff\xda", content.rindex(b"\xff\xc4"))
    return content[:place] + content[place:-2] * scans + content[-2:]


def test_a_jpeg_of_many_scans_is_refused(tmp_path):
    (tmp_path / "x.jpg").write_bytes(_jpeg_of_scans(raster.MAX_SCANS + 1))
    assert read(tmp_path, "x.jpg").reason == "too_large"


def _directory(entries: list[tuple[int, int, int, int]], following: int = 0) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", following)


@pytest.mark.parametrize("tags", [range(40000, 60000), [34665]])
def test_a_directory_whose_entries_share_their_bytes_is_refused(tmp_path, tags):
    padding = bytes(2**20)
    head = _directory([(tag, 7, 2**20, 300000) if tag != 34665 else (tag, 4, 1, 100) for tag in tags])
    if len(tags) == 1:
        head = head.ljust(100, b"\0") + _directory([(tag, 4, 2**18, 300000) for tag in range(40000, 40100)])[8:]
    (tmp_path / "x.tif").write_bytes(head + padding + padding)
    found = read(tmp_path, "x.tif")
    assert (found.reason, found.detail[:16]) == ("too_large", "a TIFF directory")


def test_pages_in_a_ring_are_refused_at_once(tmp_path):
    (tmp_path / "x.tif").write_bytes(_directory([(256, 4, 1, 10)], following=8))
    assert read(tmp_path, "x.tif").reason == "multi_frame"


def test_exif_beyond_its_limit_is_refused(tmp_path):
    exif = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 40000, 7, 2**17, 30) + bytes(2**17 + 30)
    Pillow.fromarray(GREY).save(tmp_path / "image.png", exif=exif)
    assert read(tmp_path).reason == "too_large"


def test_a_tile_larger_than_any_image_is_refused(tmp_path):
    entries = [(256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1), (277, 3, 1, 1)]
    entries += [(322, 4, 1, 2**16), (323, 4, 1, 2**16), (324, 4, 1, 8), (325, 4, 1, 100)]
    (tmp_path / "x.tif").write_bytes(_directory(entries) + bytes(200))
    assert read(tmp_path, "x.tif").reason == "too_large"


def test_a_file_beyond_its_limit_is_refused(tmp_path):
    Pillow.fromarray(GREY).save(tmp_path / "image.png")
    with (tmp_path / "image.png").open("r+b") as file:
        file.truncate(raster.MAX_BYTES + 1)  # sparse
    assert read(tmp_path).reason == "too_large"


@pytest.mark.parametrize("form", ["png", "jpg", "tif"])
def test_the_largest_image_costs_less_than_a_gigabyte(tmp_path, form):
    """Files of a few megabytes at the limit of pixels, in the way of each format that takes most."""
    line = (np.arange(8192) // 32).astype(np.uint8)
    grey = Pillow.fromarray(np.broadcast_to(line, (8192, 8192)).copy())
    name = f"image.{form}"
    if form == "png":
        Pillow.merge("RGBA", (grey, grey, grey, Pillow.new("L", grey.size, 255))).save(tmp_path / name, compress_level=1)
    elif form == "jpg":
        Pillow.merge("CMYK", (grey,) * 4).save(tmp_path / name, progressive=True)
    else:
        exif = Pillow.Exif()
        exif[ORIENTATION] = 6
        Pillow.merge("RGB", (grey,) * 3).save(tmp_path / name, compression="tiff_lzw", exif=exif)
    script = r"""
import re, sys
from pathlib import Path
from medssl.data.formats import READERS, Item
(found,) = READERS["raster"].read(Path(sys.argv[1]), Item(sys.argv[2]))
assert found.pixels.shape == (8192, 8192), found
# Not getrusage, whose figure a process takes over from the one that started it.
print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), name], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2**20  # KiB


def test_real_stained_tissue_in_colour(shared_data):
    root = shared_data / "breakhis_tiles"
    for item in READER.find(root)[::20]:
        (image,) = READER.read(root, item, (), RGB)
        with Pillow.open(root / item.path) as file:
            assert np.array_equal(image.pixels, np.asarray(file.convert("RGB")))
