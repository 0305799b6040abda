"""Photos are read whole, upright and in sRGB, or refused with a sentence."""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from photos import SMALL, close, png_that_claims, small_picture, tiff_of
from PIL import Image, ImageCms, ImageFile

from metalora.config import UserError
from metalora.store.images import demo_portrait, photo_digest, read_photo, to_pil, to_tensor


@pytest.fixture
def picture() -> Image.Image:
    return small_picture()


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., torch.Tensor]:
    """Save a Pillow image under a name and read it as a photo."""

    def read(image: Image.Image, name: str, **options: object) -> torch.Tensor:
        image.save(tmp_path / name, **options)
        return read_photo(tmp_path / name)

    return read


@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_colours_grey_and_one_bit_are_read_exactly(picture, read, mode):
    photo, expected = read(picture.convert(mode), "a.png"), picture.convert(mode).convert("RGB")
    assert photo.dtype == torch.float32
    assert torch.equal(photo, to_tensor(expected))
    assert to_pil(photo).tobytes() == expected.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_rotated_by_exif_equals_the_upright_one(picture, read, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = picture.transpose(undo[orientation]) if orientation in undo else picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert torch.equal(read(stored, "a.png", exif=exif), to_tensor(picture))


@pytest.mark.parametrize(("mode", "name", "levels"), [("CMYK", "a.jpg", 4), ("CMYK", "a.tif", 2), ("LAB", "a.tif", 3)])
def test_other_colour_spaces_keep_their_colours(picture, read, mode, name, levels):
    profiles = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
    stored = ImageCms.profileToProfile(picture, *profiles, outputMode=mode) if mode == "LAB" else picture.convert(mode)
    assert close(read(stored, name, **({"quality": 95} if name == "a.jpg" else {})), to_tensor(picture), levels)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_of_grey_and_colour_are_scaled_not_clipped(picture, read, name, tmp_path):
    grey = np.asarray(picture.convert("L"))
    photo = read(Image.fromarray(grey.astype(np.uint16) * 257), name)
    assert torch.equal(photo, to_tensor(Image.fromarray(grey).convert("RGB")))
    deep = np.asarray(picture)[..., ::-1].astype(np.uint16) * 257
    assert cv2.imwrite(str(tmp_path / name), deep)  # Pillow itself cannot write it
    assert close(read_photo(tmp_path / name), to_tensor(picture), levels=0.01)


@pytest.mark.parametrize("order", "<>")
def test_sixteen_bit_grey_is_read_in_both_byte_orders_and_planes_of_colours_are_refused(picture, tmp_path, order):
    pixels = np.asarray(picture)
    (tmp_path / "a.tif").write_bytes(tiff_of(pixels[..., :1].astype(np.uint16) * 257, order=order))
    assert close(read_photo(tmp_path / "a.tif"), to_tensor(Image.fromarray(pixels[..., 0]).convert("RGB")), 0.01)
    (tmp_path / "a.tif").write_bytes(tiff_of(pixels.astype(np.uint16) * 257, planes=True, order=order))
    with pytest.raises(UserError, match=r"16-bit unsigned numbers in planes.* 8 or 16 bits"):
        read_photo(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(tiff_of(pixels, planes=True, order=order, colours=8))
    with pytest.raises(UserError, match=r"8-bit unsigned numbers in planes"):
        read_photo(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(tiff_of(65535 - pixels[..., :1].astype(np.uint16) * 257, colours=0))
    with pytest.raises(UserError, match=r"16-bit unsigned numbers, 0 being white"):
        read_photo(tmp_path / "a.tif")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="is a pipe"):
        read_photo(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["f4", "f8", "f2", "u4", "i4", "i2", "i1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_numbers_that_are_not_read_right_are_refused_as_such(picture, tmp_path, kind, channels):
    values = (np.asarray(picture) / 255 * (1 if kind[0] == "f" else 100)).astype(kind)[..., :channels]
    (tmp_path / "a.tif").write_bytes(tiff_of(values))
    with pytest.raises(UserError, match=r"a\.tif is a TIFF of .* 8 or 16 bits"):
        read_photo(tmp_path / "a.tif")


def test_a_portable_float_map_is_refused(tmp_path):
    (tmp_path / "a.pfm").write_bytes(b"Pf\n2 2\n-1.0\n" + np.linspace(0, 1, 4, dtype="<f4").tobytes())
    with pytest.raises(UserError, match=r"a\.pfm holds floating-point numbers"):
        read_photo(tmp_path / "a.pfm")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_becomes_white(picture, read, mode):
    image = picture.convert(mode)
    alpha = Image.new("L", SMALL, 255)
    alpha.paste(0, (0, 0, 32, 48))
    image.putalpha(alpha)
    photo = read(image, "a.png")
    assert (photo[:, :, :32] == 1).all()
    assert torch.equal(photo[:, :, 32:], to_tensor(picture.convert(mode).convert("RGB"))[:, :, 32:])


def test_a_palette_with_alpha_becomes_colours_on_white(picture, read):
    palette = picture.quantize(64)
    photo = read(palette, "a.png", transparency=bytes([0]) + bytes([255]) * 63)
    indices = torch.from_numpy(np.array(palette))
    assert (photo[:, indices == 0] == 1).all()
    assert torch.equal(photo[:, indices != 0], to_tensor(palette.convert("RGB"))[:, indices != 0])


@pytest.mark.parametrize("name", ["a.webp", "a.gif", "a.bmp", "a.tif", "a.jpg"])
def test_other_formats_are_read(picture, read, name):
    assert close(read(picture, name), to_tensor(picture), levels=8)


def test_the_embedded_profile_decides_the_colours(picture, read):
    """An image stored in a profile with swapped primaries shows the same colours as the sRGB original."""
    profile = swapped_profile()
    stored = Image.merge("RGB", picture.split()[::-1])
    assert close(read(stored, "a.png", icc_profile=profile), to_tensor(picture), levels=1)


def swapped_profile() -> bytes:
    """An sRGB profile whose red and blue primaries are exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize(
    ("mode", "profile"),
    [("RGB", b"no profile at all"), ("RGB", b"\0" * 200), ("L", swapped_profile())],
    ids=["text", "zeros", "of-another-mode"],
)
def test_a_profile_that_is_broken_or_for_another_mode_is_read_as_srgb(picture, read, mode, profile):
    stored = picture.convert(mode)
    assert torch.equal(read(stored, "a.png", icc_profile=profile), to_tensor(stored.convert("RGB")))


@pytest.mark.parametrize("with_data", [True, False], ids=["complete", "only-a-header"])
def test_a_decompression_bomb_is_refused_before_decoding(tmp_path, with_data):
    (tmp_path / "bomb.png").write_bytes(png_that_claims(50_000, 50_000, with_data))
    start = time.perf_counter()
    with pytest.raises(UserError, match=r"bomb\.png.*(megapixels|damaged)"):
        read_photo(tmp_path / "bomb.png")
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("format", ["GIF", "PNG", "TIFF", "WEBP"])
def test_a_small_file_of_many_pixels_and_frames_is_refused_before_decoding(tmp_path, monkeypatch, format):
    size = (16_000, 7_500) if format != "WEBP" else (16_000, 4_000)
    frames = {} if format in ("TIFF", "WEBP") else {"save_all": True, "append_images": [Image.new("L", size, 1)]}
    Image.new("L", size).save(
        tmp_path / "bomb", format, **({"compression": "tiff_lzw"} if format == "TIFF" else frames)
    )
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("a pixel was decoded"))
    with pytest.raises(
        UserError, match=rf"bomb is 16000 x \d+ pixels, \d+ megapixels; at most 40 are read from a {format}"
    ):
        read_photo(tmp_path / "bomb")


def test_of_an_animation_only_the_first_frame_is_decoded(picture, read):
    frames = {"save_all": True, "append_images": [picture.rotate(180)] * 3}
    assert close(read(picture, "a.webp", lossless=True, **frames), to_tensor(picture), levels=0.5)


def test_a_jpeg_of_the_largest_cameras_is_read_at_half_its_size(tmp_path, picture):
    picture.resize((8_000, 6_000)).save(tmp_path / "a.jpg")
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.shape == (3, 3_000, 4_000)
    assert close(photo, to_tensor(picture.resize((4_000, 3_000))), levels=3)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("text.jpg", b"Dear diary, today I took a photo of myself.", "not a picture"),
        ("empty.jpg", b"", "is empty"),
        ("photo.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        ("page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        ("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC.*pillow-heif.*JPEG"),
        ("photo.NEF", b"II*\0\x08\0\0\0", "camera raw"),
    ],
)
def test_what_is_no_photo_has_its_sentence(tmp_path, monkeypatch, name, content, sentence):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence) as caught:
        read_photo(tmp_path / name)
    assert name in str(caught.value)


def test_a_missing_file_and_a_folder_have_their_sentences(tmp_path):
    with pytest.raises(UserError, match=r"nobody\.jpg does not exist"):
        read_photo(tmp_path / "nobody.jpg")
    with pytest.raises(UserError, match="is a folder"):
        read_photo(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(UserError, match="cannot be opened"):
        read_photo(tmp_path / "file" / "photo.jpg")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_a_cut_picture_is_refused_or_read_whole(tmp_path, picture, format):
    picture.save(tmp_path / "whole", format)
    data, whole = (tmp_path / "whole").read_bytes(), read_photo(tmp_path / "whole")
    for share in (0.001, 0.02, 0.3, 2 / 3, 0.9, 0.99, 0.9999):
        (tmp_path / "cut").write_bytes(data[: max(1, int(len(data) * share))])
        if share > 2 / 3:
            with contextlib.suppress(UserError):
                assert torch.equal(read_photo(tmp_path / "cut"), whole)
        else:
            with pytest.raises(UserError, match="damaged" if share >= 0.3 else "cut"):
                read_photo(tmp_path / "cut")


def test_a_truncated_picture_is_refused_even_where_pillow_was_told_to_pad_it(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    (tmp_path / "cut.jpg").write_bytes(demo_portrait().read_bytes()[:60_000])
    with pytest.raises(UserError, match="damaged or cut short"):
        read_photo(tmp_path / "cut.jpg")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_the_digest_follows_the_pixels_and_not_the_file(tmp_path, picture):
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.bmp")
    one, other = read_photo(tmp_path / "a.png"), read_photo(tmp_path / "b.bmp")
    assert photo_digest(one) == photo_digest(other)
    other[0, 0, 0] += 1 / 255
    assert photo_digest(one) != photo_digest(other)
    assert photo_digest(torch.zeros(3, 2, 8)) != photo_digest(torch.zeros(3, 8, 2))
