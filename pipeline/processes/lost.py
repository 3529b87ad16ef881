"""Messages on workers that were lost, with advice where memory was the cause."""

ADVICE = "take fewer --workers, a smaller segment.frames or a smaller --size"
# Words of errors where memory ran out: of torch's RuntimeError and cv2.error, and of Ray's memory monitor.
_TORCH_MEMORY = ("can't allocate memory", "not enough memory", "Insufficient memory")
_RAY_MEMORY = ("running low on memory", "memory pressure", "OutOfMemory")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error inside a worker means that memory ran out."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _TORCH_MEMORY)


def lost_line(error: BaseException) -> str:
    """One line on why an actor or its node died.

    Args:
        error: Ray's error, or the one that the actor raised when memory ran out.
    """
    text = " ".join(str(error).split())
    name = type(error).__name__
    if out_of_memory(error) or name == "OutOfMemoryError" or any(words in text for words in _RAY_MEMORY):
        return f"a worker of the run ran out of memory; {ADVICE} ({text[:120] or name})"
    if "SIGKILL" in text:
        return f"a worker of the run died, killed or crashed; if memory was the cause, {ADVICE}"
    return f"a worker of the run died: {text[:200] or name}"
