"""What is said of a worker that was lost, and what to change where memory was the cause."""

ADVICE = "take fewer --workers, a smaller segment.frames or a smaller --size"
_TORCH_SAYS = ("can't allocate memory", "not enough memory", "Insufficient memory")  # RuntimeError of torch, cv2.error
_RAY_SAYS = ("running low on memory", "memory pressure", "OutOfMemory")  # its memory monitor, in an actor's last words


def out_of_memory(error: BaseException) -> bool:
    """Whether an error inside a worker means that it got no more memory."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _TORCH_SAYS)


def lost_line(error: BaseException) -> str:
    """One line on what an actor or its node died of.

    Args:
        error: Ray's, or what the actor raised when it got no more memory.
    """
    text = " ".join(str(error).split())
    name = type(error).__name__
    if out_of_memory(error) or name == "OutOfMemoryError" or any(words in text for words in _RAY_SAYS):
        return f"a worker of the run ran out of memory; {ADVICE} ({text[:120] or name})"
    if "SIGKILL" in text:
        return f"a worker of the run died, killed or crashed; if memory was the cause, {ADVICE}"
    return f"a worker of the run died: {text[:200] or name}"
