"""Our variants in a process pinned to AVX2, as results are made; peers run natively meanwhile.

The two processes take turns within a round: this one sends a request as a line of JSON, and waits.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks import cases
from benchmarks.measure import Elsewhere, timed
from benchmarks.reasons import reason
from ticketlab import gpu, instruction_set
from ticketlab.gpu import Runtime
from ticketlab.spec import ROOT


@contextmanager
def process(scale: cases.Scale) -> Iterator[Elsewhere | None]:
    """A pinned process that times variants; None where this processor cannot be pinned."""
    environment = instruction_set.pinned()
    if instruction_set.current(environment) == "native":
        yield None
        return
    name = next(name for name, known in cases.SCALES.items() if known == scale)
    command = [sys.executable, "-m", "benchmarks.pinned", name]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, cwd=ROOT, **pipes) as other:

        def ask(*question: str) -> Any:
            assert other.stdin and other.stdout
            other.stdin.write(json.dumps(question) + "\n")
            other.stdin.flush()
            if not (answer := other.stdout.readline()):
                raise RuntimeError(f"the pinned process ended when asked {question}")
            return json.loads(answer)

        yield ask
        assert other.stdin
        other.stdin.close()


def serve(scale: cases.Scale) -> None:
    """Answer questions from standard input until it ends; one case is held at a time."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed
    makers, case = cases.cases(scale), None
    for line in sys.stdin:
        what, name, variant = json.loads(line)
        if case is None or case.name != name:
            case = makers[name][0]()
        run = next(own.run for own in case.variants if own.name == variant)
        if what == "time":
            answer: Any = timed(run, torch.device("cpu"))
        else:
            answer = reason(run, next(g.products for g in case.goals if g.variant == variant))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    gpu.start(Runtime(device="cpu", deterministic=False))
    torch.manual_seed(0)
    serve(cases.SCALES[sys.argv[1]])
