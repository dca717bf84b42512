"""The pin: what a pinned process was started with, who pins, and who is warned."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Message
from environments import OTHERWISE, free

from ticketlab import instruction_set
from ticketlab.instruction_set import PINNED, UNSET, current, pinned
from ticketlab.spec import ROOT
from ticketlab.study import runner
from ticketlab.study.results import Result, unit_key
from ticketlab.study.runner import Unit

can_pin = pytest.mark.skipif(current(pinned()) == "native", reason="nothing to pin here")


def program(code: str, environment: dict[str, str]) -> str:
    """What a process prints that starts with an environment of its own."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@can_pin
@pytest.mark.parametrize("user", [{}, OTHERWISE])
def test_a_pinned_environment_has_every_library_at_avx2(user: dict[str, str]) -> None:
    environment = pinned(free(**user))
    assert current(environment) == "avx2" and "MKL_CBWR" not in environment
    code = """
import torch, numpy._core._multiarray_umath as m
print(torch.backends.cpu.get_cpu_capability(), *[n for n in m.__cpu_dispatch__
      if m.__cpu_features__[n] and (n == "X86_V4" or n.startswith("AVX512"))])"""
    assert program(code, environment) == "AVX2"
    assert pinned(environment) == environment


@can_pin
@pytest.mark.parametrize("change", [*({name: "x"} for name in UNSET), {"ATEN_CPU_CAPABILITY": ""}])
def test_a_variable_set_afterwards_undoes_the_pin(change: dict[str, str]) -> None:
    environment = pinned(free())
    assert current(environment | change) == "native"
    assert current(pinned(environment | change)) == "avx2"


@pytest.mark.parametrize("value", ["", "x", "[]", "{}", '{"ATEN_CPU_CAPABILITY": "avx512"}'])
def test_a_mark_alone_pins_nothing(value: str) -> None:
    assert current(free(**{PINNED: value})) == "native"


def test_importing_ticketlab_sets_nothing() -> None:
    code = "import os; a = dict(os.environ); import ticketlab.cli; print(a == dict(os.environ))"
    assert program(code, free()) == "True"


@can_pin
def test_the_program_pins_itself_unless_asked_not_to(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "ticketlab", "pinned", sys.executable, "-c",
               "from ticketlab.instruction_set import current; print(current())"]  # fmt: skip

    def printed(**more: str) -> str:
        environment = free(PYTHONPATH=str(ROOT), **more)
        return subprocess.run(
            program, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
        ).stdout.strip()

    assert printed() == printed(MKL_CBWR="AVX2") == "avx2"
    assert printed(TICKETLAB_NATIVE="1") == "native"


def test_tests_are_pinned_where_results_are() -> None:
    assert current() == current(pinned())


@can_pin
def test_a_library_that_is_there_already_cannot_be_pinned() -> None:
    with pytest.raises(RuntimeError, match="numpy is imported already"):
        instruction_set.pin_this_process(free())
    instruction_set.pin_this_process(free(TICKETLAB_NATIVE="1"))


def nothing() -> Result:
    """A unit of work without any."""
    return Result({})


@can_pin
def test_a_unit_says_what_it_was_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.run([Unit("one", nothing, {})], tmp_path)
    key = unit_key(nothing, {})
    monkeypatch.delenv(PINNED)
    with pytest.warns(UserWarning, match="instruction set: not pinned"):
        runner.run([Unit("two", nothing, {})], tmp_path)
    stored = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two")]
    assert [unit["instruction_set"] for unit in stored] == ["avx2", "native"]
    assert unit_key(nothing, {}) != key  # no pinned study takes up a native unit


def test_workers_of_another_instruction_set_are_refused(one_line: Message) -> None:
    here, there = ("avx2", "native") if current() == "avx2" else ("native", "avx2")
    runner.check_instruction_sets("dask:x", {"tcp://1": here})  # type: ignore[dict-item]
    message = one_line(
        lambda: runner.check_instruction_sets("dask:x", {"tcp://1": here, "tcp://2": there})  # type: ignore[dict-item]
    )
    assert f"workers that are {there}" in message and "(tcp://2)" in message


@pytest.mark.parametrize(
    ("native", "advice"), [("0", "ticketlab pinned COMMAND"), ("1", "TICKETLAB_NATIVE asks for")]
)
def test_the_warning_of_a_native_process_says_what_would_pin_it(
    native: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ticketlab pinned` pins nothing where TICKETLAB_NATIVE says so."""
    for name in (instruction_set.PINNED, *instruction_set.EVERYWHERE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(instruction_set.NATIVE, native)
    if instruction_set.current(instruction_set.pinned()) == "native":
        pytest.skip("nothing can be pinned here")
    with pytest.warns(UserWarning, match="not pinned") as caught:
        instruction_set.warn_if_native()
    said = str(caught[0].message)
    assert advice in said and ("ticketlab pinned" in said) == (native == "0")
