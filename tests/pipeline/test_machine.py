"""machine.json: an entry per paper, and the rule that two of them decide."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, Message

from ticketlab.files import read_json
from ticketlab.pipeline import machine

VERSIONS = {"torch": "2.15.0", "torchvision": "0.29.2", "numpy": "2.4.6"}
AMD = {"kind": "cpu", "vendor": "AuthenticAMD", "instruction_set": "avx2", "processor": "EPYC",
       "cores": 2, "device": "cpu", **VERSIONS}  # fmt: skip
INTEL = AMD | {"vendor": "GenuineIntel", "processor": "Xeon"}
OTHER_INTEL = INTEL | {"processor": "Core"}
NATIVE = AMD | {"instruction_set": "native"}
GPU = AMD | {"kind": "cuda", "device": "a GPU"}


def test_papers_keep_their_own_entries(tmp_path: Path) -> None:
    for paper in ("colt", "prac", "colt"):
        machine.note(tmp_path / "desk", paper, CPU)
    found = read_json(tmp_path / "desk" / "machine.json")
    assert set(found) == {"colt", "prac"} and found["colt"] == machine.describe(CPU)
    assert {"processor", "cores", "instruction_set", "python", "device"} <= set(found["colt"])


@pytest.mark.parametrize(
    "then, now, same, said",
    [
        ({"colt": AMD}, {"colt": AMD | {"cores": 64, "processor": "Ryzen"}}, True, "byte for byte"),
        ({"colt": AMD}, {"colt": INTEL}, False, "made with AMD processors"),
        ({"colt": INTEL}, {"colt": INTEL | {"cores": 64}}, True, "byte for byte"),
        ({"colt": INTEL}, {"colt": OTHER_INTEL}, False, "made with Xeon"),
        ({"colt": AMD}, {"colt": AMD | {"torch": "2.16.0"}}, False, "torch 2.15.0"),
        ({"colt": AMD}, {"colt": NATIVE}, False, "instruction set native"),
        ({"colt": NATIVE}, {"colt": NATIVE}, False, "promises no bytes"),
        ({"colt": GPU}, {"colt": GPU}, False, "a GPU, which promises no bytes (on CUDA the backw"),
        ({"colt": AMD, "prac": AMD}, {"colt": AMD, "prac": INTEL}, False, "prac was made with"),
        ({}, {"colt": AMD}, False, "not recorded"),
    ],
)
def test_the_same_bytes_are_expected_of_one_kind_of_machine(
    then: Any, now: Any, same: bool, said: str
) -> None:
    expected, words = machine.rule(machine.parsed(json.dumps(then)), now)
    assert expected is same and said in words
    assert words.startswith("byte for byte" if same else "by intervals and verdicts")


def test_a_revision_or_a_folder_without_the_file_has_no_machines(tmp_path: Path) -> None:
    assert machine.parsed(None) == machine.read(tmp_path) == {}
    machine.note(tmp_path, "colt", CPU)
    assert machine.read(tmp_path) == {"colt": machine.describe(CPU)}


@pytest.mark.parametrize("text, named", [
    ("{", "not readable"), ("[1]", "not readable"), ('{"colt": 3}', "not readable"),
    ('{"colt": {"kind": "cpu"}}', "colt: device is missing"),
])  # fmt: skip
def test_a_damaged_file_is_one_line(text: str, named: str, one_line: Message) -> None:
    assert named in one_line(lambda: machine.parsed(text))
