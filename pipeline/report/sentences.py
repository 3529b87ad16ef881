"""Headline sentences of a report (what was run, what was saved) and of a comparison of two runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from deltascene.pipeline.units import count, drift, duration, milliseconds, share


def what_line(whole: Mapping[str, Any], videos: Sequence[Mapping[str, Any]]) -> str:
    """One sentence on what was run.

    Args:
        whole: result of `totals`.
        videos: reports of the videos.
    """
    tasks = len({task for video in videos for task in video.get("kinds", ())})
    text = f"{count(whole['frames'], 'frame')} of {count(len(videos), 'video')}, {count(tasks, 'task')}"
    ended = {"failed": "failed", "unreadable": "had no valid frame"}
    numbers = {words: sum(video["status"] == status for video in videos) for status, words in ended.items()}
    without = "".join(f" {count(number, 'input')} {words}." for words, number in numbers.items() if number)
    rate = f": {whole['fps']:.3g} frames per second" if whole["fps"] else ""
    return f"{text}, in {duration(whole['seconds'])}{rate}." + without


def saved_line(whole: Mapping[str, Any]) -> str:
    """Sentences on what was saved, in MACs and in measured time; neither is claimed without the other.

    Args:
        whole: result of `totals`.
    """
    if whole["saved"] is None:
        return "No frame could be predicted."
    if set(whole["by_policy"]) <= {"dense", "skipped"}:
        every = "Every token of every valid frame" if whole["invalid"] else "Every token of every frame"
        return f"{every} was computed (dense prediction), so nothing was saved."
    how = ", ".join(_how(policy, part) for policy, part in whole["by_policy"].items() if policy != "skipped")
    valid = count(whole["frames"] - whole["invalid"], "valid frame" if whole["invalid"] else "frame")
    return f"{share(whole['saved'])} of the MACs of dense prediction were saved: of {valid}, {how}. {_time_line(whole)}"


def cost_line(whole: Mapping[str, Any], units: Mapping[str, str]) -> str:
    """Sentences on what the saving cost: the drift from dense prediction, or why it isn't known.

    Args:
        whole: result of `totals`.
        units: unit of drift by task.
    """
    if not whole["reused"]:
        return "Nothing is lost: predictions are dense prediction’s own." if whole["saved"] is not None else ""
    if not whole["audits"] and whole["drift"]:
        means = [f"{task} {drift(each['mean'], units.get(task, ''))}" for task, each in whole["drift"].items()]
        audits = max(each["audits"] for each in whole["drift"].values())
        return f"Drift from dense prediction on {count(audits, 'audited frame')}, at fixed steps: {', '.join(means)}."
    if not whole["audits"]:
        return (
            "What that cost is not known: no frame was audited. Random audits (run.audit) draw few frames of a short or"
            " idle run; --set run.audit=1 lets them cost as much as the run itself."
        )
    parts = [_drift_words(task, found, units.get(task, "")) for task, found in whole["audits"].items()]
    audits = max(found["audits"] for found in whole["audits"].values())
    known = any(found["drift"]["low"] is not None for found in whole["audits"].values())
    return (
        f"Mean drift from dense prediction{', with 95 % interval' if known else ''}: {'; '.join(parts)}."
        f" Measured by {count(audits, 'audit')}{'' if known else ', too few for an interval'},"
        f" {share(whole['macs_audit'] / whole['macs_executed'])} of the MACs"
        f" executed; without them {share(whole['saved_unaudited'])} were saved."
    )


def _drift_words(task: str, found: Mapping[str, Any], unit: str) -> str:
    """`seg 2.1 % (1.8 to 2.5; 0.9 % over the floor of 1.2 %)`."""
    mean, floor, excess = (found[name] for name in ("drift", "floor", "excess"))
    inside = []
    if mean["low"] is not None:
        inside.append(f"{drift(mean['low'], unit).rstrip(' %°')} to {drift(mean['high'], unit)}")
    if floor is not None:
        inside.append(f"{drift(excess['mean'], unit)} in excess of the floor of {drift(floor['mean'], unit)}")
    return f"{task} {drift(mean['mean'], unit)}" + (f" ({'; '.join(inside)})" if inside else "")


def diff_headline(diff: Mapping[str, Any]) -> dict[str, str]:
    """Three sentences on runs A and B: what was compared, the cost of B, the drift of B from A.

    Args:
        diff: values of `report.diff.build_diff`, without the headline.
    """
    frames = sum(video["common"] for video in diff["videos"])
    elsewhere = any(each["group"] == "machine" for each in diff["differences"])
    what = f"{count(frames, 'frame')} of {count(len(diff['videos']), 'video')} are in both runs."
    drifts = [
        f"{task} {each['mean']:.3g} {each['unit']}" for task, each in diff["drift"].items() if each["mean"] is not None
    ]
    equal = all(each["identical"] == each["frames"] for each in diff["drift"].values())
    same = "B’s predictions equal A’s in every pixel."
    apart = f"The mean drift of B’s predictions from A’s: {'; '.join(drifts)}."
    return {"what": what, "cost": _cost_line(diff["cost"], elsewhere), "drift": same if equal else apart}


def _cost_line(cost: Mapping[str, Any], elsewhere: bool) -> str:
    if cost["macs"] is None or cost["median"] is None:
        return "The costs can’t be compared: A computed nothing on these frames."
    means = [milliseconds(cost[run]["frame_seconds"]["mean"]) for run in "ba"]
    return (
        f"B computes {share(cost['macs'])} of A’s MACs and takes {share(cost['mean'])} of its time:"
        f" {means[0]} a frame against {means[1]}, on average."
        + (" The runs were made on different machines, so their times can’t be compared." if elsewhere else "")
    )


def _how(policy: str, part: Mapping[str, Any]) -> str:
    frames = count(part["frames"])
    if policy == "rows":
        mean = share(part["rows_computed"] / max(1, part["rows"]))
        return f"{frames} ran only on changed tokens ({mean} of all{' on average' if part['frames'] > 1 else ''})"
    verb = "was" if part["frames"] == 1 else "were"
    words = {"dense": "ran dense", "warped": f"{verb} warped", "held": "had not changed and kept the last outputs"}
    return f"{frames} {words.get(policy, policy)}"


def _time_line(whole: Mapping[str, Any]) -> str:
    dense, all_frames = whole["by_policy"].get("dense"), whole["frame_seconds"]
    if whole["seconds_saved"] is None or dense is None:
        found = "no dense frame" if dense is None else f"too few dense frames ({dense['frames']})"
        return f"A frame took {milliseconds(all_frames['mean'])} on average; this run has {found} to compare it with."
    saved = whole["seconds_saved"]
    times = {name: [milliseconds(each[name]) for each in (all_frames, dense["frame_seconds"])] for name in saved}
    less = {name: f"{share(part)} less" if part > 0 else "no less" for name, part in saved.items()}
    return (
        f"{'Time was saved, too' if saved['mean'] > 0 else 'No time was saved'}: a frame took {times['mean'][0]}"
        f" on average, a dense frame of this run {times['mean'][1]} ({less['mean']});"
        f" the medians are {' and '.join(times['median'])} ({less['median']})."
    )
