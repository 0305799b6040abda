"""What a process of ours settles before torch and transformers load: how threads wait, what is not looked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import python

CODE = (
    "import sys; from metalora.cli import make_parser; make_parser(); assert 'torch' not in sys.modules; import torch"
)


@pytest.mark.parametrize(
    ("theirs", "policy", "turns"),
    [
        ({}, "PASSIVE", "700"),
        ({"GOMP_SPINCOUNT": "5"}, "PASSIVE", "5"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "PASSIVE", "0"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE", "30000000000"),
    ],
)
def test_the_threads_of_torch_wait_as_the_user_says_or_soon_asleep(theirs: dict[str, str], policy: str, turns: str):
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", **theirs}
    words = [sys.executable, "-c", CODE]
    said = subprocess.run(words, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert f"OMP_WAIT_POLICY = '{policy}'" in said.stderr  # of the runtime itself
    assert f"GOMP_SPINCOUNT = '{turns}'" in said.stderr


def test_what_is_kept_from_transformers_is_never_looked_for_in_vain():
    """Somebody else, open_clip for one, may have imported transformers, which then knows scipy to be there."""
    code = """
import metalora.backbones
metalora.backbones.own_process = True
import transformers
from transformers.utils import is_scipy_available
assert is_scipy_available()
from metalora.backbones.pipeline import lean_imports
with lean_imports("scipy"):
    from transformers import CLIPTextModel
"""
    pytest.importorskip("scipy")
    assert not (ended := python(code)).returncode, ended.stderr
