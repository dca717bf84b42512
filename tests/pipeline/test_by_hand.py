"""The round by hand of a page whose units were made on another machine."""

from pathlib import Path

import pytest
import tiny
from conftest import CPU

from ticketlab.files import write_json
from ticketlab.pipeline import by_hand
from ticketlab.study.results import ELSEWHERE, made_here

GPU = tiny.colt(runtime={"device": "cpu", "precision": "bf16"})


def test_it_is_the_studys_own_where_its_units_were_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert by_hand.by_hand(GPU, tmp_path) is GPU and not capsys.readouterr().out


def test_elsewhere_it_is_short_and_says_so(
    tiny_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(by_hand, "IMAGES", 20)  # a tenth
    write_json(tmp_path / ELSEWHERE, made_here(CPU))
    transform = {"batch": 50, "length": "100it", "schedule": "constant"}
    params = tiny.dlth(transform=transform, penalty={"ceiling": 1.0, "ramp": 60, "every": 1})
    short = by_hand.by_hand(params, tmp_path)
    assert (short.data.train, short.data.validation, short.data.test) == (20, 20, 100)
    assert (str(short.transform.length), short.penalty.ramp) == ("10it", 6)
    assert str(short.early_bird.every) == "1it" and short.levels == params.levels
    assert "20 images in float32" in capsys.readouterr().out
    colt = by_hand.by_hand(GPU, tmp_path)
    assert colt.runtime.precision == "float32" and colt.recipe == GPU.recipe
    assert colt.model_copy(update={"data": GPU.data, "runtime": GPU.runtime}) == GPU
