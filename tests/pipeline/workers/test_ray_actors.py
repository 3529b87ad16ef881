"""What an actor does before it computes."""

import pytest

from deltascene import Engine
from deltascene.cache.keys import file_sha256
from deltascene.pipeline.config import load_config
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.numerics.settle import honour, numerics_record
from deltascene.pipeline.workers.ray_actors import ActorSetup, EngineActor


def test_an_actor_honours_the_numerics_or_fails_by_name(tiny_delta):
    config = load_config("balanced", overrides=["numerics.threads=1"], values={"model": tiny_delta})
    engine = Engine.from_config(config)
    config, record = engine.config, numerics_record(engine.config)
    honour(config, record)
    weights = {file.name: file_sha256(file) for file in engine.model.bundle.weight_files(engine.model.tasks)}
    setup = ActorSetup(config, str(tiny_delta), weights, record | {"torch": "0.1"}, False)
    with pytest.raises(UsageError, match=r"expected torch = 0\.1"):
        EngineActor(setup, ["parts"], ()).ready()
