"""What the first bytes and the outermost structure of a file tell, without a decoder."""

import struct
from pathlib import Path

_MP4_STARTS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def container_of(path: Path) -> str:
    """`mp4`, `matroska`, `avi` or nothing, by the first bytes of a file."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] in _MP4_STARTS:
        return "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    return "avi" if head[:4] == b"RIFF" and head[8:12] == b"AVI " else ""


def is_cut_off(path: Path) -> bool:
    """Whether a file ends before its last outermost box (MP4) or chunk (AVI) does; False for other containers."""
    container = container_of(path)
    if container not in ("mp4", "avi"):
        return False
    end = path.stat().st_size
    at = 0
    with path.open("rb") as file:
        while at + 8 <= end:
            file.seek(at)
            size = _mp4_box_bytes(file.read(16), end - at) if container == "mp4" else _riff_bytes(file.read(8))
            if size < 8:
                return True
            at += size
    return at > end


def _mp4_box_bytes(head: bytes, left: int) -> int:
    """Source: ISO/IEC 14496-12, 4.2 (size 1: a 64-bit size follows; size 0: up to the end of the file)."""
    size = int(struct.unpack(">I", head[:4])[0])
    if size == 1 and len(head) == 16:
        return int(struct.unpack(">Q", head[8:])[0])
    return size or left


def _riff_bytes(head: bytes) -> int:
    size = int(struct.unpack("<I", head[4:])[0])
    return 8 + size + size % 2
