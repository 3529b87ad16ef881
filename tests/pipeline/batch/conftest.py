"""What tests of the batch flow share."""

import pytest

from deltascene.pipeline.batch import flow


@pytest.fixture
def untidied(monkeypatch):
    """As if runs were killed right before they remove the parts of a finished video."""
    with monkeypatch.context() as patch:
        patch.setattr(flow, "_tidy", lambda *_: None)
        yield
    monkeypatch.undo()
