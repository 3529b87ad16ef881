"""What results and archived activations depend on, as flat mappings of plain values."""

from collections.abc import Mapping
from typing import Any

from deltascene.cache.keys import file_sha256, fingerprint
from deltascene.pipeline.bundles.bundle import Bundle
from deltascene.pipeline.bundles.fetch import public_url
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config, as_before
from deltascene.pipeline.numerics.settle import numerics_record


def result_key(config: Config, model: SceneModel) -> dict[str, Any]:
    """Everything that results depend on besides the input: result config, weights and numerics."""
    files = [model.bundle.folder / "bundle.yaml", *model.bundle.weight_files(model.tasks)]
    key: dict[str, Any] = {f"config.{name}": value for name, value in config.result_keys().items()}
    key["config.model"] = public_url(config.model)
    if config.input.resize == model.bundle.entry.input.resize:
        key["config.input.resize"] = None  # that is what null means
    for name, value in as_before().items():  # the records of earlier versions lack them
        if key.get(f"config.{name}", ...) == value:
            del key[f"config.{name}"]
    key |= {f"weights.{path.name}": file_sha256(path) for path in files}
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
    base = base_key(bundle, run_key[f"weights.{bundle.backbone_file().name}"])
    return key | base | {"input": input_, "decoder": decoder}


def base_key(bundle: Bundle, weights: str) -> dict[str, Any]:
    """The part of an archive's key that a model must share to compute a task from the archive.

    Args:
        bundle: bundle of the model.
        weights: SHA-256 of its base's weights.
    """
    return {
        "weights.base": weights,
        "bundle.backbone": fingerprint(bundle.entry.backbone.model_dump(mode="json")),
        "bundle.input": fingerprint(bundle.entry.input.model_dump(mode="json")),
    }


def segment_key(run_key: Mapping[str, Any], input_: str, decoder: str) -> str:
    """Fingerprint of everything that the results of a video's segments depend on.

    Args:
        run_key: key of the run, as returned by `result_key`.
        input_: identity of the input.
        decoder: name and version of the decoder that reads it.
    """
    return fingerprint({**run_key, "input": input_, "decoder": decoder})
