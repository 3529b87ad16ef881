"""What an earlier run left, and whether this one may go on with it.

Results depend on a key: result config, weights, numerics, and per input its bytes and decoder. Where the key differs,
nothing is mixed: the run is refused by the first thing that differs.
"""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deltascene.cache.errors import BrokenSeal, CacheError
from deltascene.cache.keys import file_sha256, fingerprint, first_difference
from deltascene.cache.places import remove, write_whole
from deltascene.cache.seal import Seal, read_seal
from deltascene.cache.zarr_store import ZarrStore
from deltascene.pipeline.bundles.bundle import Bundle
from deltascene.pipeline.bundles.fetch import public_url
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config, NumericsConfig
from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.numerics.settle import numerics_record
from deltascene.pipeline.runs import ledger
from deltascene.pipeline.runs.folder import RunFolder, VideoFolder, read_run_yaml, write_run_yaml
from deltascene.pipeline.runs.videos_table import DONE_FORMAT, VideoRecord, record_of
from deltascene.pipeline.sources.identity import Identity, recognise
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.versions import machine_record, versions_record
from deltascene.pipeline.workers.jobs import Segment


def result_key(config: Config, model: SceneModel) -> dict[str, Any]:
    """Everything that decides results, input apart: result config, weights, numerics; flat and plain."""
    files = [model.bundle.folder / "bundle.yaml", *model.bundle.weight_files(model.tasks)]
    key: dict[str, Any] = {f"config.{name}": value for name, value in config.result_keys().items()}
    key["config.model"] = public_url(config.model)
    key |= {f"weights.{path.name}": file_sha256(path) for path in files}
    return key | {f"numerics.{name}": value for name, value in numerics_record(config).items()}


def archive_key(run_key: Mapping[str, Any], bundle: Bundle, input_: str, decoder: str) -> dict[str, Any]:
    """What archived activations depend on: all that results do, but for the sub-tasks; flat and plain.

    Args:
        run_key: of the run, as of `result_key`.
        bundle: of its model.
        input_: quick identity of the input.
        decoder: that reads it.
    """
    others = ("config.tasks", "config.save.", "config.numerics.delta", "config.model", "numerics.deltas", "weights.")
    key = {name: value for name, value in run_key.items() if not name.startswith(others)}
    base = base_key(bundle, run_key[f"weights.{bundle.backbone_file().name}"])
    return key | base | {"input": input_, "decoder": decoder}


def base_key(bundle: Bundle, weights: str) -> dict[str, Any]:
    """The part of an archive's key that a model has to share to go on from it.

    Args:
        bundle: of the model.
        weights: SHA-256 of its base's weights.
    """
    return {
        "weights.base": weights,
        "bundle.backbone": fingerprint(bundle.entry.backbone.model_dump(mode="json")),
        "bundle.input": fingerprint(bundle.entry.input.model_dump(mode="json")),
    }


def refuse_foreign(folder: RunFolder) -> None:
    """Leaves alone what no run made.

    Raises:
        OutputError: the folder holds other files.
    """
    foreign = folder.root.is_dir() and not folder.run_yaml.is_file()
    if foreign and any(path.name != "locks" for path in folder.root.iterdir()):
        raise OutputError(
            f"{folder.root}: expected an empty folder or an earlier run's; found other files; choose another -o"
        )


def claim_folder(folder: RunFolder, config: Config, key: Mapping[str, Any], *, force: bool) -> None:
    """Writes `run.yaml`, or checks that the one there describes the same run.

    Raises:
        OutputError: the folder holds results of another config, model or machine.
    """
    if folder.run_yaml.is_file() and not force:
        before = read_run_yaml(folder).get("key")
        difference = first_difference(before if isinstance(before, dict) else {}, key)
        if difference:
            name, found, wanted = difference
            raise OutputError(
                f"{folder.root}: holds a run with {name} = {_short(found)}; this one has {_short(wanted)};"
                " choose another -o, or --force to replace it"
            )
        return
    if force:
        remove(folder.root / "videos")
        folder.videos_parquet.unlink(missing_ok=True)
    write_run_yaml(
        folder,
        {
            "deltascene": 1,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "fingerprint": fingerprint(key),
            "config": {**config.model_dump(mode="json"), "model": public_url(config.model)},
            "versions": versions_record(),
            "machine": machine_record(),
            "key": dict(key),
        },
    )


def as_begun(folder: RunFolder, config: Config) -> Config:
    """A config whose open questions of arithmetic are answered as by the run that is there, so that it can go on.

    So threads, type and kernel don't depend on whether a machine measures the same twice, or on where it computes.
    """
    recorded = read_run_yaml(folder).get("config") if folder.run_yaml.is_file() else None
    before = recorded.get("numerics") if isinstance(recorded, dict) else None
    if not isinstance(before, dict):
        return config
    asked = config.numerics.model_dump()
    answers = {name: before[name] for name in asked if asked[name] in (None, "auto") and name in before}
    try:
        numerics = NumericsConfig.model_validate(asked | answers)
    except ValidationError:  # whoever goes on compares keys, and says what differs
        return config
    return config.model_copy(update={"numerics": numerics})


def sealed_segments(
    files: VideoFolder, keys: Collection[str], segments: Sequence[Segment], input_full: str = ""
) -> dict[int, Seal]:
    """Seals of the finished segments among those planned, by start; all others are removed and done again.

    One whose archived activations were harmed isn't finished; one that wasn't archived, or no longer is, may be.

    Args:
        files: of the video.
        keys: fingerprints that a segment may have.
        segments: those planned.
        input_full: full hash of the input, if known; a segment that was made from an input with another isn't finished.
    """
    seals, harmed = {}, harmed_archives(files)
    for segment in segments:
        path = files.part(segment.start)
        try:
            seal = read_seal(path)
        except FileNotFoundError:
            continue
        except BrokenSeal:
            remove(path)
            continue
        other = input_full and seal.input_full and seal.input_full != input_full
        fits = seal.fingerprint in keys and seal.frames == segment.frames and not other
        if fits and segment.start not in harmed:
            seals[segment.start] = seal
        else:
            remove(path)
    return seals


@dataclass(frozen=True, slots=True)
class Done:
    """What `done.json` says of a video that is whole.

    Attributes:
        record: its row of `videos.parquet`.
        fingerprint: of all that its results depend on.
        segments: start and number of frames of all of them.
        files: size and SHA-256 of its arrays' shards, by path below the video's folder.
    """

    record: VideoRecord
    fingerprint: str
    segments: Sequence[tuple[int, int]]
    files: Mapping[str, tuple[int, str]]


def write_done(files: VideoFolder, done: Done) -> None:
    """Marks a video as done; the last file that is written for it."""
    data = {"format": DONE_FORMAT, **asdict(done.record), "fingerprint": done.fingerprint}
    data |= {"segments": done.segments, "files": done.files}
    write_whole(files.done, json.dumps(data, indent=1) + "\n")


def read_done(files: VideoFolder) -> Done | None:
    """What is said of a finished video; None if it isn't one."""
    try:
        data = json.loads(files.done.read_text(encoding="utf-8"))
        if data["format"] != DONE_FORMAT:
            return None
        record = record_of(data)
        sums = {str(name): (int(size), str(sum_)) for name, (size, sum_) in data["files"].items()}
        segments = [(int(start), int(frames)) for start, frames in data["segments"]]
        return Done(record, str(data["fingerprint"]), segments, sums)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def require_same_input(files: VideoFolder, done: Done, spec: SourceSpec, now: Identity) -> Done:
    """Refuses results that were made from another input.

    Args:
        files: of the video.
        done: what its `done.json` says.
        spec: the input.
        now: its identity.

    Returns:
        The same with all that is known of the input's identity by now.

    Raises:
        OutputError: they were.
    """
    record = done.record
    recorded = Identity(record.identity, record.identity_full)
    known = recognise(spec, recorded, now)
    if known is None:
        found, expected = (now.full, recorded.full) if now.full and recorded.full else (now.quick, recorded.quick)
        raise OutputError(
            f"{files.root}: was made from another {Path(record.source).name} (input identity {expected[:12]}…);"
            f" this one has {found[:12]}…; choose another -o, or --force to replace it"
        )
    return replace(done, record=replace(record, identity=known.quick, identity_full=known.full))


def intact(files: VideoFolder, done: Done) -> bool:
    """Whether a finished video still holds what was sealed: every byte of it, in an object store every file's size."""
    try:
        for name, (size, sum_) in done.files.items():
            file = files.inside(name)
            if file.stat().st_size != size or (isinstance(file, Path) and file_sha256(file) != sum_):
                return False
        rows: int = ledger.read_rows(files.frames_parquet).num_rows
        return rows >= done.record.frames
    except (OSError, OutputError):
        return False


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "…"


def harmed_archives(files: VideoFolder) -> set[int]:
    """Starts of archived segments that don't hold the bytes any more that were sealed."""
    store, harmed = ZarrStore(files.activations), set()
    for start in store.starts():
        try:
            store.verify(start)
        except CacheError:
            harmed.add(start)
    return harmed
