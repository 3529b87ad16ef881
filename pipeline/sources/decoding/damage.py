"""How far damage reaches: from the packet in which FFmpeg found it up to the next keyframe."""

import numpy as np

from deltascene.pipeline.sources.info import FrameTable


class Damage:
    """Damage found so far in a file; what it says of a frame depends on the file only, not on where reading began.

    A frame needs others of its group: those from the last keyframe that isn't shown after it. What is decoded after a
    keyframe and shown before it (of an open group of pictures) also needs that keyframe.
    """

    def __init__(self, table: FrameTable) -> None:
        self._table = table
        self._numbers = dict(zip(table.packets.tolist(), range(table.frames), strict=True))
        self._key_packets = table.packets[table.keys]
        self._keys = set(table.keys.tolist())
        self._found: dict[int, int] = {}  # group → its first damaged packet
        self._slow: set[int] = set()
        self._came: set[int] = set()  # numbers of keyframes

    def number_of(self, packet: int) -> int | None:
        """Number of the frame that a packet holds."""
        return self._numbers.get(packet)

    def came(self, number: int, *, whole: bool) -> None:
        """Takes note of a decoded frame: after a keyframe that isn't whole, the picture is renewed bit by bit."""
        if number in self._keys:
            self._came.add(number)
            if not whole:
                self._slow.add(self._table.group_of(number))

    def found(self, packet: int) -> None:
        """Takes note of damage in a packet."""
        number = self.number_of(packet)
        group = self._decoded_in(packet) if number is None else self._table.group_of(number)
        self._found[group] = min(packet, self._found.get(group, packet))

    def reaches(self, number: int, packet: int) -> bool:
        """Whether a frame is damaged, or builds on damage or on a keyframe that didn't come.

        Args:
            number: of the frame.
            packet: that holds it.
        """
        group = self._table.group_of(number)
        if group >= 0 and int(self._table.keys[group]) not in self._came:
            return True
        if not self._found:
            return False
        began = self._decoded_in(packet)
        if self._found.get(group, packet + 1) <= packet:
            return True
        if group in self._slow and group - 1 in self._found:
            return True
        return began > group and self._found.get(began, -1) == self._key_packets[began]

    def _decoded_in(self, packet: int) -> int:
        """Place of the last keyframe that is decoded before a packet, or in it."""
        return int(np.searchsorted(self._key_packets, packet, side="right")) - 1
