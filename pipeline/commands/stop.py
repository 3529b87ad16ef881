"""Ctrl-C and SIGTERM: the first ends a run after the open segments, the second at once."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from deltascene.pipeline.batch.events import Stop
from deltascene.pipeline.errors import Stopped


@contextmanager
def stoppable(segment_frames: int | None = None) -> Iterator[Stop]:
    """Has the first Ctrl-C or SIGTERM set `Stop.asked`, and the second one end the work at once.

    Args:
        segment_frames: largest number of frames of a segment, for the message; None leaves it out.

    Raises:
        Stopped: the second one came.
    """
    stop, size = Stop(), f" (up to {segment_frames} frames each)" if segment_frames else ""

    def ask(number: int, _frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        text = f"stopping as soon as the open segments{size} are finished; stop again to end at once and discard them"
        print(f"\n{text}", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except KeyboardInterrupt:
        kept = "finished segments are kept; run the same command again to continue"
        raise Stopped(f"stopped at once; {kept}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
