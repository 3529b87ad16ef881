"""Odd and damaged images of a sequence, and animated WebP: the right picture, or a cause, or one clear line."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

from deltascene.pipeline.sources.decoding.by_image import (
    animation_pictures,
    examine_animation,
    examine_sequence,
    sequence_pictures,
)
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import probe, read_frames
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.stages.types import Image

SIZE = (48, 64)
RATE = Fraction(10)
SMALL = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
RGB: Image = np.asarray(cv2.resize(SMALL, SIZE[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
GREY = np.broadcast_to(RGB[..., :1], RGB.shape)


def encoded(picture: Pillow.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def by_opencv(array: np.ndarray[Any, Any], suffix: str = ".tiff") -> bytes:
    done, data = cv2.imencode(suffix, array[..., ::-1] if array.ndim == 3 and array.shape[2] == 3 else array)
    assert done
    return data.tobytes()


def read(folder: Path, *files: bytes) -> list[tuple[int, Image | None, str]]:
    paths = [folder / f"{number}.any" for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    return list(sequence_pictures(paths, examine_sequence(paths, RATE), range(len(paths))))


COLOURS = Pillow.fromarray(RGB)
MASKED = COLOURS.copy()
MASKED.putalpha(Pillow.fromarray(np.full(SIZE, 255, np.uint8) - np.uint8(127) * (RGB[..., 0] > 99)))
PALETTE = COLOURS.quantize(64)
BITS = COLOURS.convert("1")
SIXTEEN = RGB.astype(np.uint16) * 257
FLOATS = (RGB / 255).astype(np.float32)
WITH_SUN = np.where(RGB > 200, 40, FLOATS).astype(np.float32)
BROKEN_FLOATS = np.where(RGB < 50, np.nan, FLOATS).astype(np.float32)

ODD: dict[str, tuple[bytes, Any, float]] = {
    "float32": (by_opencv(FLOATS), RGB, 0),
    "float64": (by_opencv(FLOATS.astype(np.float64)), RGB, 0),
    "float to 255": (by_opencv(RGB.astype(np.float32)), RGB, 0),
    "float to 65535": (by_opencv(SIXTEEN.astype(np.float32)), RGB, 0),
    "float grey": (by_opencv(FLOATS[..., 0]), GREY, 0),
    "float with lights above white": (by_opencv(WITH_SUN), np.where(RGB > 200, 255, RGB), 0),
    "float with holes": (by_opencv(BROKEN_FLOATS), np.where(RGB < 50, 0, RGB), 0),
    "16-bit png": (by_opencv(SIXTEEN, ".png"), RGB, 0),
    "16-bit tiff": (by_opencv(SIXTEEN), RGB, 0),
    "16-bit grey": (by_opencv(SIXTEEN[..., 0], ".png"), GREY, 0),
    "grey": (by_opencv(RGB[..., 0], ".png"), GREY, 0),
    "grey and alpha": (encoded(MASKED.convert("LA"), "PNG"), np.asarray(COLOURS.convert("L"))[..., None], 1),
    "png with alpha": (encoded(MASKED, "PNG"), RGB, 0),
    "webp with alpha": (encoded(MASKED, "WEBP", lossless=True, exact=True), RGB, 0),
    "tiff with alpha": (encoded(MASKED, "TIFF"), RGB * (np.asarray(MASKED)[..., 3:] / 255), 1),
    "palette": (encoded(PALETTE, "PNG"), np.asarray(PALETTE.convert("RGB")), 0),
    "one bit": (encoded(BITS, "PNG"), np.asarray(BITS.convert("RGB")), 0),
    "fax": (encoded(BITS, "TIFF", compression="group4"), np.asarray(BITS.convert("RGB")), 0),
    "cmyk jpeg": (encoded(COLOURS.convert("CMYK"), "JPEG", quality=95), RGB, 6),
    "progressive": (encoded(COLOURS, "JPEG", quality=95, progressive=True), RGB, 6),
    "pages": (encoded(COLOURS, "TIFF", save_all=True, append_images=[BITS]), RGB, 0),
    "lzw": (encoded(COLOURS, "TIFF", compression="tiff_lzw"), RGB, 0),
    "zip": (encoded(COLOURS, "TIFF", compression="tiff_deflate"), RGB, 0),
    "jpeg in tiff": (encoded(COLOURS, "TIFF", compression="jpeg", quality=95), RGB, 6),
    "bmp": (encoded(PALETTE, "BMP"), np.asarray(PALETTE.convert("RGB")), 0),
    "film behind a jpeg": (encoded(COLOURS, "JPEG", quality=95) + b"\xff\xda" + bytes(99), RGB, 6),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_image(tmp_path: Path, name: str) -> None:
    data, truth, tolerance = ODD[name]
    ((_, image, cause),) = read(tmp_path, data)
    assert cause == ""
    assert image is not None
    assert image.shape == RGB.shape
    assert np.abs(image.astype(float) - truth).mean() <= tolerance


def test_avif(tmp_path: Path) -> None:
    (tmp_path / "a.avif").write_bytes(by_opencv(RGB, ".avif"))
    (spec,) = find_sources([str(tmp_path / "a.avif")])
    (frame,) = read_frames(spec)
    assert frame.image is not None
    assert np.abs(frame.image.astype(int) - RGB).mean() < 8


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_stand_upright(tmp_path: Path, form: str) -> None:
    for orientation in range(1, 9):
        tags = Pillow.Exif()
        tags[0x112] = orientation
        data = encoded(COLOURS, form, exif=tags, **({"lossless": True} if form == "WEBP" else {}))
        upright = np.asarray(ImageOps.exif_transpose(Pillow.open(io.BytesIO(data))))
        ((_, image, cause),) = read(tmp_path, data)
        assert image is not None, (cause, orientation)
        assert image.shape == upright.shape
        assert np.abs(image.astype(int) - upright).mean() < 1


def test_heic_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "1.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    (spec,) = find_sources([str(tmp_path)])
    with pytest.raises(UnreadableSource, match=r"1\.heic: expected images .*; found HEIC; way out: magick mogrify"):
        probe(spec)


def test_an_image_of_another_size_is_scaled_to_the_first(tmp_path: Path) -> None:
    large = np.asarray(cv2.resize(RGB, (128, 96), interpolation=cv2.INTER_NEAREST))
    first, second = read(tmp_path, by_opencv(RGB, ".png"), by_opencv(large, ".png"))
    assert np.array_equal(first[1], second[1])
    _, small = read(tmp_path, by_opencv(large, ".png"), by_opencv(RGB, ".png"))
    assert small[1] is not None
    assert small[1].shape == (96, 128, 3)


def test_gaps_between_numbers_are_gaps_in_time(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in (5, 6, 7, 9)]
    for path in paths:
        path.write_bytes(by_opencv(RGB, ".png"))
    info = examine_sequence([paths[0], paths[1], paths[3]], RATE)
    assert info.frames == 3
    assert info.table.pts_s.tolist() == pytest.approx([0, 0.1, 0.4])
    assert info.duration_s == 0.5
    assert examine_sequence(paths[:3], RATE).table.pts_s.tolist() == pytest.approx([0, 0.1, 0.2])


def noise(form: str, **options: Any) -> bytes:
    """An image whose bytes are mostly pixels."""
    small = np.random.default_rng(5).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    return encoded(Pillow.fromarray(cv2.resize(small, (320, 240), interpolation=cv2.INTER_CUBIC)), form, **options)


SOUND = {
    "jpeg": noise("JPEG", quality=90),
    "progressive": noise("JPEG", quality=90, progressive=True),
    "restarts": noise("JPEG", quality=90, restart_marker_rows=1),
    "png": noise("PNG"),
    "webp": noise("WEBP", lossless=True),
    "tiff": noise("TIFF", compression="tiff_lzw"),
    "zip": noise("TIFF", compression="tiff_deflate"),
    "bmp": noise("BMP"),
}


@pytest.mark.parametrize("name", SOUND)
def test_damaged_image_is_corrupt(tmp_path: Path, name: str) -> None:
    sound = SOUND[name]
    middle = len(sound) // 2
    rubbish = np.random.default_rng(7).integers(0, 256, 600, dtype=np.uint8).tobytes()
    overwritten = sound[:middle] + rubbish + sound[middle + 600 :]
    files = [sound, sound[:middle], sound[:-40], b"no image", b"", overwritten]
    causes = [cause for _, _, cause in read(tmp_path, *files)]
    assert causes[:5] == ["", *["corrupt"] * 4]
    if name not in ("bmp", "tiff", "webp", "zip"):  # they carry no checksum, or OpenCV doesn't look at it
        assert causes[5] == "corrupt"


DURATIONS_MS = [100, 50, 200, 40, 80, 120]


def drawn(number: int) -> Pillow.Image:
    """A box that moves over nothing, above a box that is half there."""
    image = np.zeros((*SIZE, 4), np.uint8)
    image[10:30, 5 + 6 * number : 20 + 6 * number] = 255, 40 * number, 0, 255
    image[35:45, 20 : 30 + number] = 0, 0, 255, 128
    return Pillow.fromarray(image, "RGBA")


def over_white(rgba: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    alpha = rgba[..., 3:] / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


def animation(path: Path, frames: list[Pillow.Image], durations: list[int], **options: Any) -> Path:
    frames[0].save(path, "WEBP", save_all=True, append_images=frames[1:], duration=durations, lossless=True, **options)
    return path


@pytest.mark.parametrize("options", [{}, {"minimize_size": True}, {"kmin": 0, "kmax": 1}, {"allow_mixed": True}])
def test_animated_webp(tmp_path: Path, options: dict[str, Any]) -> None:
    path = animation(tmp_path / "a.webp", [drawn(number) for number in range(6)], DURATIONS_MS, **options)
    info = examine_animation(path)
    assert info.table.pts_s.tolist() == [0, 0.1, 0.15, 0.35, 0.39, 0.47]
    assert (info.frames, info.duration_s, info.fps, info.truncated) == (6, 0.59, Fraction(6000, 590), False)
    assert (info.height, info.width) == SIZE
    told = list(animation_pictures(path, range(6)))
    for index, image, cause in told:
        assert cause == ""
        assert image is not None
        assert np.abs(image - over_white(np.asarray(drawn(index)))).max() <= 2
    for wanted in (range(4, 6), range(1, 6, 3), range(5, 6), range(0)):
        part = list(animation_pictures(path, wanted))
        assert [index for index, _, _ in part] == list(wanted)
        assert all(np.array_equal(image, told[index][1]) for index, image, _ in part)


def test_animated_webp_through_the_decoder_process(tmp_path: Path) -> None:
    rgb = [Pillow.fromarray(np.roll(RGB, 5 * number, 1)) for number in range(4)]
    path = animation(tmp_path / "a.webp", rgb, [0, 10, 40, 40])
    frames = list(read_frames(SourceSpec("a", "video", (path,))))
    assert [frame.pts_s for frame in frames] == [0, 0.1, 0.2, 0.24]  # as browsers take durations of nothing
    assert all(np.array_equal(frame.image, picture) for frame, picture in zip(frames, rgb, strict=True))


def test_damaged_animation(tmp_path: Path) -> None:
    rgb = [Pillow.fromarray(np.roll(RGB, 5 * number, 1)) for number in range(6)]
    path = animation(tmp_path / "a.webp", rgb, DURATIONS_MS, kmin=1, kmax=1)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UnreadableSource, match="found none of its frames"):
        examine_animation(path)
