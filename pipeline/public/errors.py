"""The base class of all errors that a user can cause or fix, and the exit codes of the command.

Every folder adds its own in its `errors.py`; all are exported, as `deltascene.UsageError`. This module imports no other
of the package, so that every folder can use it.

DeltasceneError                  exit code
├── UsageError                   2    an option, key, name or path that can't be used
│   ├── BundleError              2    a model bundle that can't be read or doesn't fit together
│   ├── ConfigError              2    an unknown key or a value out of range
│   ├── OutputError              2    the output folder belongs to another run, is in use, or can't be written
│   │   └── Overtaken            2    another run took it over, as this one was taken for dead
│   ├── NotPredicted             2    a quantity that wasn't predicted for a frame was asked for; a KeyError, too
│   └── RoomsError               2    rooms can't be made
│       ├── MeshesMissing        2    the folder holds no furniture libraries
│       ├── MeshUnusable         2    an OBJ has no face that can be drawn
│       ├── LabelsWrong          2    the label table and the class list disagree
│       └── RoomImpossible       2    no acceptable scene or view came out of a seed
├── StageError                   2    a stage was handed something that it can't work with; a ValueError, too
│   ├── UnsupportedBackbone      2    the network can't be run by rows
│   ├── UnfitDelta               2    delta weights don't fit the backbone's blocks
│   ├── UnsupportedHead          2    a head's name or shape doesn't fit its taps
│   └── UnsupportedKind          2    a task's kind or stored form makes no sense
├── CacheError                   2    something in the store can't be used
│   ├── BrokenSeal               2    a sealed part is missing, of another size, or its bytes changed
│   ├── NotArchived              2    no such segment, archive point or frame was sealed
│   ├── WrongFingerprint         2    it was made from something else: the text names the first thing that differs
│   ├── AlreadySealed            2    a sealed segment is never written again, unless that is asked for
│   ├── LostWriter               2    another writer began the same segment meanwhile
│   ├── WrongRecord              2    a frame doesn't fit the segment that it is added to
│   ├── NothingDense             2    changed rows without a dense frame before them
│   └── NoSuchStore              2    a place that can't be opened, or can't be written safely
├── SourceError                  3    an input can't be used
│   ├── SourceNotFound           2    nothing is at that path, or nothing to read in it
│   └── UnreadableSource         3    it is there, but no picture comes out of it
├── WorkerLost                   3    an input whose workers were lost again and again
├── EncoderFailed                3    an input whose overlay can't be encoded
├── NoCapacity                   3    no machine of a cluster has room for any worker any more
├── DiskFull                     4    no room left; what was finished is sealed
└── Stopped                      130  stopped from outside, at once

An input that fails while others go on is exit code 3 in the end, whatever its error is.
"""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """How the command ends."""

    OK = 0
    INTERNAL = 1  # a fault of ours, or a problem that `doctor` found
    USAGE = 2
    INPUT_FAILED = 3  # at least one input; or what was looked for isn't there
    DISK_FULL = 4
    BUDGET_REACHED = 4
    STOPPED = 130


class DeltasceneError(Exception):
    """Base of all errors whose text is meant for the user."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
