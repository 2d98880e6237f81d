"""Engines in several threads and on both sides of a fork, even one that comes in the middle of a step."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import tiny_packed
from tercet.runtime import Engine, Sampling

PROGRAM, TENSORS = tiny_packed.model()
PROMPT = list(range(40, 80))
SAMPLING = Sampling(temperature=0.9, seed=2, max_tokens=15)


def test_two_engines_step_from_two_threads() -> None:
    engines = [Engine(PROGRAM, TENSORS, threads=threads, context=128) for threads in (2, 3)]
    expected = list(engines[0].generate(PROMPT, SAMPLING))
    got: list[list[int]] = []

    def work(engine: Engine) -> None:
        for _ in range(5):
            engine.prompt_cache.clear()
            got.append(list(engine.generate(PROMPT, SAMPLING)))

    workers = [threading.Thread(target=work, args=(engine,)) for engine in (*engines, *engines)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert got == [expected] * 20


FORKS = """
import os, signal, sys, threading
import tiny_packed
from tercet.runtime import Engine, Sampling

program, tensors = tiny_packed.model()
engines = [Engine(program, tensors, threads=2, context=128) for _ in range(2)]
prompt, sampling = list(range(40, 80)), Sampling(temperature=0.9, seed=2, max_tokens=15)
answer = lambda engine: list(engine.generate(prompt, sampling))
expected = answer(engines[0])

ending = threading.Event()
def work():
    while not ending.is_set():
        engines[0].prompt_cache.clear()
        answer(engines[0])
busy = threading.Thread(target=work)
if sys.argv[1] == "busy":
    busy.start()
signal.alarm(200)

for _ in range(8):
    child = os.fork()
    if not child:
        signal.alarm(100)  # rather than wait for ever
        right = all(answer(engine) == expected for engine in engines)
        os._exit(0 if right else 3)
    here = all(answer(engine) == expected for engine in engines)
    _, status = os.waitpid(child, 0)
    assert here and status == 0, (here, status)
ending.set()
"""


@pytest.mark.parametrize("parent", ["idle", "busy"])
def test_a_fork_leaves_both_sides_working(parent: str) -> None:
    tests = str(Path(tiny_packed.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r})\n{FORKS}", parent],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
