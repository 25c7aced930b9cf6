"""A reward that misbehaves as the prompt of a row says, and scores brightness otherwise."""

import ctypes
import os
import signal
import subprocess
import sys
import time

import torch

from rewards import Scores

LONG = 600


def busy():
    while True:
        pass


DEEDS = {
    "sleep": lambda: time.sleep(LONG),
    "busy": busy,
    "native": lambda: ctypes.PyDLL(None).sleep(LONG),  # with the interpreter's lock held
    "segfault": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(7),
    "out of memory": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "print": lambda: print("x" * 10**6, "the last words", flush=True),
    "raise": lambda: 1 / 0,
    "kill whoever asks": lambda: (os.kill(os.getppid(), signal.SIGKILL), time.sleep(LONG)),
}


class Naughty:
    needs = frozenset({"prompts"})
    uses = frozenset()
    range = (0.0, 1.0)

    def __init__(self, warm_up: str = "", delay: float = 0.0, record: str = ""):
        self.delay, self.record = delay, record
        if warm_up == "child":
            self.child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({LONG})"])
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif warm_up:
            DEEDS[warm_up]()

    def __call__(self, inputs):
        for prompt in inputs.prompts:
            if prompt in DEEDS:
                DEEDS[prompt]()
        # the brighter, the longer: answers come in another order than the questions
        time.sleep(self.delay * float(inputs.images[0].mean()))
        if self.record:
            with open(self.record, "a") as file:
                file.write(f"{os.getpid()} {len(inputs.images)}\n")
        values = inputs.images.mean(dim=(1, 2, 3))
        said = [prompt for prompt in inputs.prompts for _ in range_of(inputs)]
        for sample, prompt in enumerate(said):
            if prompt in ("nan", "inf", "-inf"):
                values[sample] = float(prompt)
        applicable = torch.tensor([prompt != "nothing" for prompt in said])
        return Scores(values=values, applicable=applicable)


def range_of(inputs):
    return [None] * inputs.group_size
