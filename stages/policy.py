"""What a frame needs: a pure function of what changed and what is due."""

from typing import Literal

Policy = Literal["dense", "held", "skipped"]


def choose_policy(*, valid: bool, first: bool, identical: bool, hold_identical: bool) -> Policy:
    """The policy of one frame.

    Args:
        valid: the frame is what the camera saw; an invalid one is `skipped`: nothing runs and nothing is saved.
        first: nothing was computed yet in this segment, or the stream was reset.
        identical: the input is byte-identical to the last computed one.
        hold_identical: whether such an input keeps the last outputs.

    Returns:
        `dense`: all rows run. `held`: the last outputs stand. `skipped`: not predicted.
    """
    if not valid:
        return "skipped"
    return "held" if identical and hold_identical and not first else "dense"
