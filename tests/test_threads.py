"""On a busy machine torch's threads sleep while they wait; a setting that the user has made stays."""

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
