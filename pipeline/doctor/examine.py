"""All checks of this installation and machine."""

from collections.abc import Iterable
from functools import partial

from deltascene.pipeline.doctor.check import Check, Examination, guarded
from deltascene.pipeline.doctor.machine import (
    check_arithmetic,
    check_cores,
    check_disk,
    check_gpu,
    check_instruction_sets,
    check_kernel,
    check_memory,
    check_processor,
    check_threads,
)
from deltascene.pipeline.doctor.media import check_decoders, check_webm
from deltascene.pipeline.doctor.packages import check_torchvision, check_versions


def examine(model: str | None = None) -> list[Check]:
    """Checks everything that a run needs.

    Args:
        model: model that predicts one frame: packaged name, folder or URL; None is the first packaged one.
    """
    examinations: Iterable[tuple[str, Examination]] = (
        ("versions", check_versions),
        ("torchvision", check_torchvision),
        ("processor", check_processor),
        ("cores", check_cores),
        ("instruction sets", check_instruction_sets),
        ("memory", check_memory),
        ("torch threads", check_threads),
        ("kernel", check_kernel),
        ("arithmetic", check_arithmetic),
        ("GPU", check_gpu),
        ("decoders", check_decoders),
        ("overlay", check_webm),
        ("model", partial(_check_model, model)),
        ("disk", check_disk),
    )
    return [check for name, examination in examinations for check in guarded(name, examination)]


def _check_model(model: str | None) -> list[Check]:
    from deltascene.pipeline.doctor.model import check_model_runs  # imports torch and timm

    return check_model_runs(model)
