"""The files of deploy/ that KAD itself can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from kad_node.config import NodeConfig, load
from kad_simpul.config import SimpulConfig

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@pytest.mark.parametrize("name,model", [("kad-node", NodeConfig), ("kad-simpul", SimpulConfig)])
def test_the_sample_configuration_is_valid_and_names_every_key(name, model):
    path = DEPLOY / f"{name}.toml"
    load(model, path, {})
    lines = path.read_text().splitlines()
    assert [key for key in model.model_fields if not any(line.lstrip("# ").startswith((f"{key} =", f"[{key}]")) for line in lines)] == []
