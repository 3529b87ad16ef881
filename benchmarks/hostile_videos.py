"""Damaged and manipulated video files and images: flipped bits, cut ends, impossible numbers, special files."""

import os
import re
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from hostile_case import Case, Commands, Make, Place

CODES = {"mp4": "mp4v", "avi": "MJPG", "mkv": "mp4v", "webm": "VP80", "mov": "mp4v", "flv": "FLV1", "ts": "mp4v"}
HEADER = 600  # bytes that hold a small clip's header
_NUMBERS = (0, 1, 7, 8, 255, 65535, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)

# Fields with their offset after the four letters of their box (ISO/IEC 14496-12) or chunk (AVI RIFF); four bytes each.
_MP4 = {
    "moov size": (b"moov", -4), "mdat size": (b"mdat", -4), "stsd size": (b"stsd", -4), "trak size": (b"trak", -4),
    "movie rate": (b"mvhd", 12), "movie length": (b"mvhd", 16), "track rate": (b"mdhd", 12),
    "track length": (b"mdhd", 16),
    "track width": (b"tkhd", 76), "track height": (b"tkhd", 80), "picture size": (b"mp4v", 28), "entries": (b"stsd", 4),
    "times count": (b"stts", 4), "times run": (b"stts", 8), "times step": (b"stts", 12), "sample size": (b"stsz", 4),
    "sample count": (b"stsz", 8), "first sample": (b"stsz", 12), "chunk count": (b"stco", 4),
    "chunk place": (b"stco", 8),
    "chunk map": (b"stsc", 4), "samples a chunk": (b"stsc", 12),
}  # fmt: skip
_AVI = {
    "microseconds": (b"avih", 4), "frames": (b"avih", 20), "width": (b"avih", 36), "height": (b"avih", 40),
    "scale": (b"strh", 24), "rate": (b"strh", 28), "start": (b"strh", 32), "length": (b"strh", 36),
    "picture width": (b"strf", 8), "picture height": (b"strf", 12), "riff size": (b"RIFF", 0),
    "list size": (b"LIST", 0),
    "index size": (b"idx1", 0), "movi size": (b"movi", -8),
}  # fmt: skip
# Matroska elements (RFC 9559): id, and what to write behind their size.
_MKV = {
    "duration": b"\x44\x89", "time scale": b"\x2a\xd7\xb1", "width": b"\xb0", "height": b"\xba",
    "frame length": b"\x23\xe3\x83", "cluster time": b"\xe7", "codec": b"\x86", "tracks": b"\x16\x54\xae\x6b",
}  # fmt: skip


def write_clips(folder: Path, frames: int = 6) -> list[Path]:
    """Writes short real clips, one of each container."""
    import cv2
    import numpy as np

    ramp, paths = np.tile(np.linspace(0, 200, 96, dtype=np.uint8), (72, 1)), []
    for suffix, code in CODES.items():
        path = folder / f"clip-{suffix}.{suffix}"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 10.0, (96, 72))
        for number in range(frames):
            image = np.repeat(ramp[..., None], 3, axis=2)
            image[20:44, 6 * number : 6 * number + 24] = (90, 40, 220)
            writer.write(image)
        writer.release()
        if path.is_file() and path.stat().st_size:
            paths.append(path)
    return paths


def cases(seed: int) -> Iterator[Case]:
    """Cases without end: each named one once, then random damage."""
    named = [*_named(), *_fields()]
    for number, (name, make) in enumerate(named):
        yield Case("video", name, f"{seed}/video/{number}", make)
    number = len(named)
    while True:
        yield Case("video", "random damage", f"{seed}/video/{number}", _damaged(_RANDOM[number % len(_RANDOM)]))
        number += 1


def _fields() -> Iterator[tuple[str, Make]]:
    for suffix, fields in (("mp4", _MP4), ("avi", _AVI)):
        for name, (letters, offset) in fields.items():
            yield f"{suffix}: {name}", _field(suffix, letters, offset)
    for name, mark in _MKV.items():
        yield f"mkv: {name}", _element(mark)


def _field(suffix: str, letters: bytes, offset: int) -> Make:
    def make(place: Place) -> Commands:
        data = bytearray(_clip(place, suffix).read_bytes())
        order, value = (">I" if suffix == "mp4" else "<I"), place.random.choice(_NUMBERS)
        for match in list(re.finditer(re.escape(letters), data))[:2]:
            at = match.end() + offset - (0 if offset >= 0 else 4)
            if 0 <= at <= len(data) - 4:
                data[at : at + 4] = struct.pack(order, value)
        return _runs(place, bytes(data), suffix)

    return make


def _element(mark: bytes) -> Make:
    def make(place: Place) -> Commands:
        data = bytearray(_clip(place, "mkv").read_bytes())
        at = data.find(mark, 40)
        if at >= 0:
            size = data[at + len(mark)] & 0x7F
            start = at + len(mark) + 1
            wild = [b"\xff" * 8, b"\x7f\xf8" + bytes(6), b"\xff\xf0" + bytes(6), bytes(8), b"\x7f\xe0" + b"\xff" * 6]
            data[start : start + min(size, 8)] = place.random.choice(wild)[: min(size, 8)]
        return _runs(place, bytes(data), "mkv")

    return make


def _flips(data: bytearray, random: Random) -> bytearray:
    for _ in range(random.choice((1, 2, 8, 40))):
        data[random.randrange(min(HEADER, len(data)))] ^= 1 << random.randrange(8)
    return data


def _flips_anywhere(data: bytearray, random: Random) -> bytearray:
    for _ in range(random.choice((4, 30, 200))):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return data


def _cut(data: bytearray, random: Random) -> bytearray:
    return data[: random.randrange(1, len(data))]


def _overwritten(data: bytearray, random: Random) -> bytearray:
    at, count = random.randrange(len(data)), random.choice((4, 64, 700))
    data[at : at + count] = random.choice((bytes(count), b"\xff" * count, random.randbytes(count)))
    return data


def _grown(data: bytearray, random: Random) -> bytearray:
    at = random.randrange(len(data))
    return data[:at] + random.randbytes(random.choice((1, 13, 4096))) + data[at:]


_RANDOM = (_flips, _flips_anywhere, _cut, _overwritten, _grown)


def _damaged(damage: Callable[[bytearray, Random], bytearray]) -> Make:
    def make(place: Place) -> Commands:
        clip = place.random.choice(place.stock.clips)
        data = damage(bytearray(clip.read_bytes()), place.random)
        return _runs(place, bytes(data), clip.suffix[1:])

    return make


def _named() -> Iterator[tuple[str, Make]]:
    yield "two clips in one file", lambda place: _runs(place, _bytes(place, "mp4") + _bytes(place, "mp4"), "mp4")
    yield "containers joined", lambda place: _runs(place, _bytes(place, "avi") + _bytes(place, "mkv"), "avi")
    yield "another container's suffix", lambda place: _runs(place, _bytes(place, "webm"), "avi")
    yield "text as video", lambda place: _runs(place, b"hello\n" * 2000, "mp4")
    yield "playlist as video", lambda place: _runs(place, _playlist(place), "mp4")
    yield (
        "concat script as video",
        lambda place: _runs(place, f"ffconcat version 1.0\nfile {place.stock.clips[0]}\n".encode(), "mkv"),
    )
    yield "empty", lambda place: _runs(place, b"", "mkv")
    yield "one byte", lambda place: _runs(place, b"\x00", "mp4")
    for size in ("W65535 H65535", "W16000 H16000", "W1 H1", "W0 H0", "W-4 H-4", "W99999999999 H2"):
        yield f"y4m of {size}", _y4m(f"YUV4MPEG2 {size} F10:1 Ip A1:1 C420jpeg")
    for rate in ("F0:1", "F1:0", "F1000000000:1", "F-3:1", "F1:4000000000"):
        yield f"y4m at {rate}", _y4m(f"YUV4MPEG2 W96 H72 {rate} Ip A1:1 C420jpeg")
    yield "time that jumps by an age", _late_frame
    yield "folder x.mp4", lambda place: _special(place, os.mkdir)
    yield "pipe without a writer", lambda place: _special(place, os.mkfifo)
    yield "socket", lambda place: _special(place, _bind)
    yield "device", lambda place: [place.run("/dev/zero")]
    yield "link to endless zeros", lambda place: _special(place, lambda path: os.symlink("/dev/zero", path))
    yield "link to itself", lambda place: _special(place, lambda path: os.symlink(path, path))
    yield "link to nothing", lambda place: _special(place, lambda path: os.symlink("nothing", path))
    yield "terabyte of nothing", lambda place: _special(place, lambda path: _sparse(path, 1 << 40))
    yield "without permission", _forbidden
    yield "loop of folders", _loop
    yield "png of 50000x50000", lambda place: _runs(place, _png(50000, 50000, b""), "png")
    yield "png bomb of 20000x20000", lambda place: _runs(place, _png(20000, 20000, bytes(2501 * 20000)), "png")
    yield "png of 1x1", lambda place: _runs(place, _png(1, 1, bytes(2)), "png")
    yield "png of 0x0", lambda place: _runs(place, _png(0, 0, b""), "png")
    yield "ppm of 65535x65535", lambda place: _runs(place, b"P6 65535 65535 255\n" + bytes(99), "ppm")
    yield "text as jpeg", lambda place: _runs(place, b"hello", "jpg")
    yield "pipe as image", lambda place: _special(place, os.mkfifo, "1.png")
    yield "endless image", lambda place: _special(place, lambda path: os.symlink("/dev/zero", path), "1.png")
    yield "images of many sizes", _sizes
    yield "numbered pipes", _numbered


def _bytes(place: Place, suffix: str) -> bytes:
    return _clip(place, suffix).read_bytes()


def _clip(place: Place, suffix: str) -> Path:
    return next(path for path in place.stock.clips if path.suffix == f".{suffix}")


def _runs(place: Place, data: bytes, suffix: str) -> Commands:
    """Runs on the file, alone or together with an undamaged one; every third one prints events."""
    path = place.inputs / f"x.{suffix}"
    path.write_bytes(data)
    sources = [path, _clip(place, "avi")] if place.random.random() < 0.2 else [path]
    return [place.run(*sources, more=place.random.choice(([], ["--json"], ["--set", "save.video=true"])))]


def _special(place: Place, make: Callable[[str], object], name: str = "x.mp4") -> Commands:
    make(str(place.inputs / name))
    asked = place.random.choice((place.inputs / name, place.inputs))
    return [place.run(place.inputs / name), place.run(asked, more=["--json"]), place.run(asked, more=["--dry-run"])]


def _y4m(header: str) -> Make:
    return lambda place: _runs(place, (header.encode() + b"\n") + (b"FRAME\n" + bytes(10368)) * 4, "y4m")


def _late_frame(place: Place) -> Commands:
    """A Matroska file with clusters at times far apart; no frames may be invented between them."""
    data = bytearray(_bytes(place, "webm"))
    blocks = [match.start() for match in re.finditer(rb"\xa3[\x40-\x9f].?\x81", bytes(data), re.DOTALL)]
    mark = data.rfind(b"\xe7")
    for at in (mark, *blocks[-1:]):
        if at > 0:
            data[at + 2 : at + 4] = b"\x7f\xff"
    return _runs(place, bytes(data), "webm")


def _bind(path: str) -> None:
    here = os.getcwd()
    os.chdir(os.path.dirname(path))  # a socket's name is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.basename(path))
    finally:
        os.chdir(here)


def _sparse(path: str, size: int) -> None:
    with open(path, "wb") as file:
        file.write(struct.pack(">I4s", 24, b"ftyp") + b"isom" + bytes(12) + struct.pack(">I4s", 0, b"mdat"))
        file.truncate(size)


def _forbidden(place: Place) -> Commands:
    path = place.inputs / "x.mp4"
    path.write_bytes(_bytes(place, "mp4"))
    path.chmod(0)
    return [place.run(path)]


def _loop(place: Place) -> Commands:
    (place.inputs / "a").mkdir()
    (place.inputs / "a" / "b").symlink_to(place.inputs)
    (place.inputs / "a" / "x.avi").write_bytes(_bytes(place, "avi"))
    return [place.run(place.inputs), place.run(f"{place.inputs}/**/*.avi")]


def _playlist(place: Place) -> bytes:
    return (
        f"#EXTM3U\n#EXTINF:10,\n{place.stock.bystander / 'note.txt'}\n#EXTINF:10,\nhttp://127.0.0.1:9/x.ts\n".encode()
    )


def _png(width: int, height: int, rows: bytes) -> bytes:
    """A black and white PNG. Source: PNG (ISO/IEC 15948), 11.2.2 IHDR."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def _sizes(place: Place) -> Commands:
    for number, size in enumerate(((96, 72), (40, 40), (1, 1), (4000, 3), (96, 72))):
        (place.inputs / f"{number}.png").write_bytes(_png(*size, bytes((1 + (size[0] + 7) // 8) * size[1])))
    return [place.run(place.inputs, more=["--set", "save.video=true"])]


def _numbered(place: Place) -> Commands:
    (place.inputs / "0.png").write_bytes(_png(96, 72, bytes(13 * 72)))
    os.mkfifo(place.inputs / "1.png")
    (place.inputs / "2.png").symlink_to("/dev/zero")
    return [place.run(place.inputs / "%d.png"), place.run(f"{place.inputs}/*.png")]
