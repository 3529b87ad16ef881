"""What results and archived activations depend on, as flat mappings of plain values."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from deltascene.cache.keys import file_sha256, fingerprint
from deltascene.pipeline.bundles.bundle import Bundle
from deltascene.pipeline.bundles.fetch import public_url
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config, as_before
from deltascene.pipeline.numerics.settle import numerics_record

_OF_BYTES = "weights.bundle.yaml"  # in keys of earlier versions: SHA-256 of the file's bytes

# Of packaged bundles at that time: what the bytes meant, by their hash.
_MEANING_OF_BYTES = {
    # rooms, version 1
    "ec855d716d16af0b0b5e6a649c04e6dcf26cc268581cd4b2e78ed4b581031515": (
        "c6d7250c39c3e3f2265b3dee3ca8f983005ea0786ae2397856312a20bf90ed80"
    ),
}


def result_key(config: Config, model: SceneModel, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Everything that results depend on besides the input: result config, weights and numerics.

    Args:
        config: a resolved and settled config.
        model: the model.
        before: key of an earlier run, to be equal if that one depended on the same; its form may be an earlier one.
    """
    key: dict[str, Any] = {f"config.{name}": value for name, value in config.result_keys().items()}
    key["config.model"] = public_url(config.model)
    if config.input.resize == model.bundle.entry.input.resize:
        key["config.input.resize"] = None  # that is what null means
    for name, value in as_before().items():  # the records of earlier versions lack them
        if key.get(f"config.{name}", ...) == value:
            del key[f"config.{name}"]
    meaning, of_bytes = fingerprint(_plain(model.bundle.entry)), (before or {}).get(_OF_BYTES)
    if of_bytes is None:
        key["weights.bundle"] = meaning
    else:
        same = _MEANING_OF_BYTES.get(of_bytes) == meaning
        key[_OF_BYTES] = of_bytes if same else file_sha256(model.bundle.folder / "bundle.yaml")
    key |= {f"weights.{path.name}": file_sha256(path) for path in model.bundle.weight_files(model.tasks)}
    return key | {f"numerics.{name}": value for name, value in numerics_record(config).items()}


def archive_key(run_key: Mapping[str, Any], bundle: Bundle, input_: str, decoder: str) -> dict[str, Any]:
    """Everything that archived activations depend on: what results depend on, without the sub-tasks.

    Args:
        run_key: key of the run, as returned by `result_key`.
        bundle: bundle of its model.
        input_: quick identity of the input.
        decoder: name and version of the decoder that reads it.
    """
    others = ("config.tasks", "config.save.", "config.numerics.delta", "config.model", "numerics.deltas", "weights.")
    key = {name: value for name, value in run_key.items() if not name.startswith(others)}
    base = base_key(bundle, run_key[f"weights.{bundle.backbone_file().name}"], run_key)
    return key | base | {"input": input_, "decoder": decoder}


def base_key(bundle: Bundle, weights: str, run_key: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an archive's key that a model must share to compute a task from the archive.

    Args:
        bundle: bundle of the model.
        weights: SHA-256 of its base's weights.
        run_key: key of the run, whose form may be an earlier one.
    """
    defaults = _OF_BYTES in run_key
    return {
        "weights.base": weights,
        "bundle.backbone": fingerprint(_plain(bundle.entry.backbone, defaults=defaults)),
        "bundle.input": fingerprint(_plain(bundle.entry.input, defaults=defaults)),
    }


def segment_key(run_key: Mapping[str, Any], input_: str, decoder: str) -> str:
    """Fingerprint of everything that the results of a video's segments depend on.

    Args:
        run_key: key of the run, as returned by `result_key`.
        input_: identity of the input.
        decoder: name and version of the decoder that reads it.
    """
    return fingerprint({**run_key, "input": input_, "decoder": decoder})


def _plain(part: BaseModel, *, defaults: bool = False) -> dict[str, Any]:
    """A part of a bundle's description as plain values, those that are the default left out unless asked for.

    Name and evidence change no result by themselves: the policy's bounds that come from evidence are in the config.
    """
    text = part.model_dump_json(exclude={"name", "evidence"}, exclude_defaults=not defaults)
    values: dict[str, Any] = json.loads(text)
    return values
