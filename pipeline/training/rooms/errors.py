"""What can go wrong while rooms are made.

RoomsError
├── MeshesMissing   the folder holds no furniture libraries
├── MeshUnusable    an OBJ has no face that can be drawn
├── LabelsWrong     the label table and the class list disagree
└── RoomImpossible  no acceptable scene or view came out of a seed
"""


class RoomsError(Exception):
    """Base of every error of the room generator."""


class MeshesMissing(RoomsError):
    """The folder holds no furniture libraries."""


class MeshUnusable(RoomsError):
    """An OBJ has no face that can be drawn."""


class LabelsWrong(RoomsError):
    """The label table and the class list disagree."""


class RoomImpossible(RoomsError):
    """No acceptable scene or view came out of a seed."""
