"""What a process of ours settles before torch and transformers load: how threads wait, what is not looked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = (
    "import sys; from metalora.cli import make_parser; make_parser(); assert 'torch' not in sys.modules; import torch"
)


@pytest.mark.parametrize(("theirs", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_the_threads_of_torch_wait_as_the_user_says_or_asleep(theirs: str | None, policy: str):
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "TRUE"} | ({"OMP_WAIT_POLICY": theirs} if theirs else {})
    words = [sys.executable, "-c", CODE]
    said = subprocess.run(words, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert f"OMP_WAIT_POLICY = '{policy}'" in said.stderr  # of the runtime itself


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
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
