"""What an earlier run left, and whether this one may go on with it.

Results depend on a key: result config, weights, numerics, and per input its bytes and decoder. Where the key differs,
nothing is mixed: the run is refused by the first thing that differs.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deltascene.cache.errors import BrokenSeal, CacheError
from deltascene.cache.keys import file_sha256, fingerprint, first_difference
from deltascene.cache.seal import Seal, read_seal, write_whole
from deltascene.cache.zarr_store import ZarrStore
from deltascene.pipeline.bundle import Bundle
from deltascene.pipeline.bundle_fetch import public_url
from deltascene.pipeline.config import Config
from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.jobs import Segment
from deltascene.pipeline.model import SceneModel
from deltascene.pipeline.numerics import numerics_record
from deltascene.pipeline.run_folder import RunFolder, VideoFolder, VideoRecord, read_run_yaml, write_run_yaml
from deltascene.pipeline.versions import machine_record, versions_record

_RECORD_FIELDS = tuple(VideoRecord.__dataclass_fields__)


def result_key(config: Config, model: SceneModel) -> dict[str, Any]:
    """Everything that decides results, input apart: result config, weights, numerics; flat and plain."""
    files = [model.bundle.folder / "bundle.yaml", *model.bundle.weight_files(model.tasks)]
    key: dict[str, Any] = {f"config.{name}": value for name, value in config.result_keys().items()}
    key["config.model"] = public_url(config.model)
    key |= {f"weights.{path.name}": file_sha256(path) for path in files}
    return key | {f"numerics.{name}": value for name, value in numerics_record(config).items()}


def archive_key(run_key: Mapping[str, Any], bundle: Bundle, identity_now: str, decoder: str) -> dict[str, Any]:
    """What archived activations depend on: all that results do, but for the sub-tasks; flat and plain.

    Args:
        run_key: of the run, as of `result_key`.
        bundle: of its model.
        identity_now: of the input.
        decoder: that reads it.
    """
    others = ("config.tasks", "config.save.", "config.numerics.delta", "config.model", "numerics.deltas", "weights.")
    key = {name: value for name, value in run_key.items() if not name.startswith(others)}
    base = base_key(bundle, run_key[f"weights.{bundle.backbone_file().name}"])
    return key | base | {"input": identity_now, "decoder": decoder}


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


def as_before(folder: RunFolder, config: Config) -> Config:
    """A config whose `numerics.dtype: auto` is what an earlier run into the same folder found, not measured again.

    A busy machine measures otherwise than an idle one, and the same command has to go on.
    """
    if config.numerics.dtype != "auto" or not folder.run_yaml.is_file():
        return config
    key = read_run_yaml(folder).get("key")
    found = key.get("config.numerics.dtype") if isinstance(key, dict) else None
    if found not in ("float32", "bfloat16"):
        return config
    return config.model_copy(update={"numerics": config.numerics.model_copy(update={"dtype": found})})


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
        shutil.rmtree(folder.root / "videos", ignore_errors=True)
        folder.videos_parquet.unlink(missing_ok=True)
    elif folder.root.is_dir() and any(path.name != folder.lock.name for path in folder.root.iterdir()):
        raise OutputError(
            f"{folder.root}: expected an empty folder or an earlier run's; found other files; choose another -o"
        )
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


def sealed_segments(files: VideoFolder, key: str, segments: Sequence[Segment]) -> dict[int, Seal]:
    """Seals of the finished segments among those planned, by start; all others are done again.

    One whose archived activations were harmed isn't finished; one that wasn't archived, or no longer is, may be.
    """
    seals, harmed = {}, harmed_archives(files)
    for segment in segments:
        if segment.start in harmed:
            continue
        path = files.seal(segment.start)
        try:
            seal = read_seal(path, files.root) if path.is_file() else None
        except BrokenSeal:
            continue
        if (
            seal is not None
            and (seal.fingerprint, seal.frames) == (key, segment.frames)
            and segment.start not in harmed
        ):
            seals[segment.start] = seal
    return seals


def write_done(files: VideoFolder, record: VideoRecord, key: str) -> None:
    """Marks a video as done; the last file that is written for it."""
    done = {"format": 1, "fingerprint": key, **{name: getattr(record, name) for name in _RECORD_FIELDS}}
    write_whole(files.done, json.dumps(done, indent=1) + "\n")


def read_done(files: VideoFolder, identity_now: str) -> VideoRecord | None:
    """The finished video's record, or None.

    Raises:
        OutputError: it was made from other bytes.
    """
    try:
        data = json.loads(files.done.read_text(encoding="utf-8"))
        record = VideoRecord(**{name: data[name] for name in _RECORD_FIELDS})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if record.identity != identity_now:
        raise OutputError(
            f"{files.root}: was made from another {Path(record.source).name} (input identity {record.identity[:12]}…);"
            f" this one has {identity_now[:12]}…; choose another -o, or --force to replace it"
        )
    return record


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


def seals_intact(files: VideoFolder, frames: int) -> bool:
    """Whether every sealed file of a finished video still holds the bytes that were sealed."""
    checked = 0
    if harmed_archives(files):
        return False
    try:
        while checked < frames:
            checked += read_seal(files.seal(checked), files.root).frames
    except BrokenSeal:
        return False
    return True
