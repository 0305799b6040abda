"""One photo of a person -> a small LoRA of that person -> images of them in new places.

    import metalora

    made = metalora.personalize("ada.jpg", class_name="woman")
    metalora.generate("a photo of a woman on a beach", lora=made.lora)

The commands of `metalora --help` are these functions. torch is loaded when one of them is called.
"""

import os

from .api import crops, evaluate, generate, meta_train, personalize, quiet
from .config import UserError

__all__ = ["UserError", "crops", "evaluate", "generate", "meta_train", "personalize", "quiet"]

# Before torch starts its threads: those that wait for each other in a loop take 70 times as long as they need where
# another process has one of two cores, those that sleep at once twice as long where none has. GNU's runtime, which
# torch brings on Linux, loops this often before it sleeps, some microseconds. The user's own setting wins.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "700")
