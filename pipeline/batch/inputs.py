"""The inputs of a run: those that the user named, under the ids that an earlier run into the same folder gave them."""

import logging
from collections.abc import Sequence

from deltascene.cache.places import Place
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.runs.videos_table import read_records
from deltascene.pipeline.sources.find import search
from deltascene.pipeline.sources.spec import SourceSpec

_log = logging.getLogger(__name__)


def find_inputs(out: Place, sources: Sequence[str], *, afresh: bool = False) -> list[SourceSpec]:
    """Resolves SOURCE… for a run, and warns once of what is passed over.

    Args:
        out: folder of the run; nothing below it is an input.
        sources: SOURCE… as typed.
        afresh: whether an earlier run's results there are to be replaced, and its ids with them.

    Raises:
        OutputError: the table of the earlier run is damaged.
        SourceNotFound: nothing is at one of the sources.
    """
    folder = RunFolder(out)
    records = read_records(folder.videos_parquet) if not afresh and folder.run_yaml.is_file() else []
    found = search(sources, out, {record.id: record.source for record in records})
    for note in found.notes:
        _log.warning("%s", note)
    return found.specs
