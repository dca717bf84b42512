"""What a study leaves behind: stored units, keys that follow the source, tables, metrics."""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from conftest import CPU, Message, equal

from ticketlab import gpu
from ticketlab.files import read_json, write_json
from ticketlab.papers.colt import study as colt_study
from ticketlab.pruning.masks import Mask
from ticketlab.pruning.patterns import DENSE, WrongMask
from ticketlab.spec import ROOT, Spec
from ticketlab.study import results
from ticketlab.study.fingerprint import fingerprint, strings_in
from ticketlab.study.results import (
    Result,
    forget_others,
    load_result,
    save_result,
    unit_key,
    with_origin,
    write_metrics,
    write_table,
)
from ticketlab.tickets.ticket import Ticket, make_ticket


def ticket(weights: bool = False) -> Ticket:
    mask = Mask({"w": torch.arange(12).view(3, 4) % 3 == 0})
    state = {"w": torch.rand(3, 4) * mask["w"], "b": torch.tensor(3)} if weights else None
    return Ticket(mask, state, {"arm": "imp", "seed": 0})


def trained() -> dict[str, Mask]:
    """What a unit that has trained the net of `ticket` hands on."""
    return {ticket().mask.digest(): ticket().mask}


def test_tickets_are_told_their_study_unit_parameters_and_versions() -> None:
    given = Result({"a": 1}, {"b": ticket()})
    arguments = {"params": tiny.colt(), "seed": 3, "chosen": {}}
    for folder, study in ((ROOT / "results/desk/runs/.colt.partial", "desk"), (Path("/x"), None)):
        facts = with_origin(given, "search/imp/seed-3", folder, arguments).tickets["b"].metadata
        assert (facts["study"], facts["unit"]) == (study, "search/imp/seed-3")
        assert facts["arm"] == "imp" and facts["seed"] == 0  # its own facts stay
        assert facts["versions"]["torch"] == version("torch")
        assert facts["parameters"]["params"]["rate"] == tiny.colt().rate
        assert "workers" not in facts["parameters"]["params"]["runtime"]  # decides nothing
    assert given.tickets["b"].metadata == {"arm": "imp", "seed": 0}


def stored(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in files}


# --- stored units


def test_a_result_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    mine = Result(
        {"arm": "imp", "rounds": [{"round": 0, "x": 0.1}]}, {"b": ticket(True), "a": ticket()}
    )
    save_result(tmp_path, "search/imp/seed-0", "key", mine, trained())
    back = load_result(tmp_path, "search/imp/seed-0", "key")
    assert back is not None and back.record == mine.record
    assert list(back.tickets) == ["a", "b"]
    for name, found in back.tickets.items():
        assert found.mask == mine.tickets[name].mask
        assert found.metadata == {"arm": "imp", "seed": 0}
    assert back.tickets["a"].weights is None
    weights, given = back.tickets["b"].weights, mine.tickets["b"].weights
    assert weights is not None and given is not None
    assert equal(dict(sorted(weights.items())), dict(sorted(given.items())))


def test_another_key_or_no_record_is_no_result(tmp_path: Path) -> None:
    save_result(tmp_path, "unit", "key", Result({}, {"a": ticket()}), trained())
    assert load_result(tmp_path, "unit", "other") is None
    assert load_result(tmp_path, "unit") is not None
    assert load_result(tmp_path, "nothing") is None
    (tmp_path / "unit.json").unlink()
    assert load_result(tmp_path, "unit", "key") is None


def test_saving_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    mine = Result({"b": 1, "a": [0.1, None]}, {"x": ticket(True), "y": ticket()})
    for folder in ("one", "two"):
        save_result(tmp_path / folder, "unit", "key", mine, trained())
    names = stored(tmp_path / "one")
    assert names == {"unit.json", "unit/x.safetensors", "unit/y.safetensors"}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("name", ["unit.json", "unit/x.safetensors"])
def test_a_damaged_or_missing_file_is_refused_by_name(
    tmp_path: Path, one_line: Message, name: str
) -> None:
    save_result(tmp_path, "unit", "key", Result({}, {"x": ticket(True)}), trained())
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-9])
    assert name in one_line(lambda: load_result(tmp_path, "unit", "key"))
    if name.endswith("safetensors"):
        path.unlink()
        assert name in one_line(lambda: load_result(tmp_path, "unit", "key"))


def pruned(keep: str, pruned_from: Mask | None) -> Ticket:
    """A ticket that keeps the weights with a 1 in `keep`."""
    bits = torch.tensor([digit == "1" for digit in keep])
    return make_ticket(Mask({"w": bits}), pruned_from=pruned_from)


def test_a_pruned_ticket_needs_a_training_under_the_mask_it_was_pruned_from(
    tmp_path: Path,
) -> None:
    before = pruned("1110", None).mask
    under, dense = {before.digest(): before}, {DENSE.digest(): DENSE}
    right = [("1100", before, under), ("1110", None, under), ("0001", DENSE, dense)]
    for number, (keep, parent, trainings) in enumerate(right):
        result = Result({}, {"t": pruned(keep, parent)})
        save_result(tmp_path, f"right-{number}", "key", result, trainings)
    wrong: dict[str, tuple[str, Mask | None, dict[str, Mask]]] = {
        "keeps weights that the mask": ("1101", before, under),  # one that was removed before
        "its mask, or the one": ("1100", None, under),  # never trained itself
        "were trained under none": ("1110", None, {}),
        "nets were trained under": ("1110", before, dense),
    }
    for message, (keep, parent, trainings) in wrong.items():
        result = Result({}, {"t": pruned(keep, parent)})
        with pytest.raises(WrongMask, match="ticket 't': ") as caught:
            save_result(tmp_path, "wrong", "key", result, trainings)
        assert message in str(caught.value) and "\n" not in str(caught.value)
    assert stored(tmp_path) == {
        f"right-{n}{end}" for n in range(3) for end in (".json", "/t.safetensors")
    }


def test_a_ticket_whose_weights_have_other_zeros_is_not_stored(tmp_path: Path) -> None:
    good = ticket(True)
    assert good.weights is not None
    bad = Ticket(good.mask, {"w": good.weights["w"].flip(1), "b": good.weights["b"]})
    with pytest.raises(WrongMask, match="ticket 'b': its weights w are not 0"):
        save_result(tmp_path, "unit", "key", Result({}, {"a": good, "b": bad}), trained())
    assert stored(tmp_path) == set()


def test_the_record_has_the_digests_of_the_patterns(tmp_path: Path) -> None:
    save_result(tmp_path, "unit", "key", Result({"a": 1}, {"x": ticket()}), trained())
    assert read_json(tmp_path / "unit.json")["trained_mask_sha256"] == [ticket().mask.digest()]


def test_only_kept_units_and_their_listed_tickets_stay(tmp_path: Path) -> None:
    save_result(
        tmp_path, "search/imp/seed-0", "old", Result({}, {"x": ticket(), "y": ticket()}), trained()
    )
    save_result(
        tmp_path, "search/imp/seed-0", "new", Result({}, {"x": ticket()}), trained()
    )  # y is left over
    save_result(tmp_path, "search/imp/seed-1", "old", Result({}, {"x": ticket()}), trained())
    save_result(tmp_path, "score/gone", "old", Result({}, {"x": ticket()}), trained())
    for killed in ("search/colt/seed-0/x.safetensors", "search/imp/.seed-0.json.7.partial"):
        (tmp_path / killed).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / killed).write_bytes(b"half a fi")
    kept = {
        name: (tmp_path / name).read_bytes()
        for name in ("search/imp/seed-0.json", "search/imp/seed-0/x.safetensors")
    }
    forget_others(tmp_path, ["search/imp/seed-0"])
    assert stored(tmp_path) == set(kept)
    assert all((tmp_path / name).read_bytes() == content for name, content in kept.items())
    folders = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*/")}
    assert folders == {"search", "search/imp", "search/imp/seed-0"}
    assert load_result(tmp_path, "search/imp/seed-0", "new") is not None


def test_forgetting_in_a_folder_that_is_not_there_does_nothing(tmp_path: Path) -> None:
    forget_others(tmp_path / "none", [])
    assert not (tmp_path / "none").exists()


# --- keys (tests/study/test_fingerprint.py: which code they follow)


class Setting(Spec):
    lr: float
    runtime: gpu.Runtime = CPU


def work(setting: Setting, seed: int) -> Result:
    return Result({"seed": seed, "lr": setting.lr})


def test_a_key_is_that_of_code_arguments_versions_and_instruction_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def key(lr: float = 0.1, seed: int = 0) -> str:
        return unit_key(work, {"setting": Setting(lr=lr), "seed": seed})

    first = key()
    assert key() == first and len({first, key(lr=0.2), key(seed=1)}) == 3
    with monkeypatch.context() as patch:
        patch.setattr(results, "version", lambda name: f"{name} of another year")
        assert key() != first
    with monkeypatch.context() as patch:
        patch.setattr(results.instruction_set, "current", lambda: "native")
        assert key() != first
    with monkeypatch.context() as patch:
        patch.setattr(results.gpu, "choose_device", lambda device: torch.device("cuda"))
        assert key() != first
    with pytest.raises(TypeError, match="set cannot be part of a unit's key"):
        unit_key(work, {"setting": {1, 2}, "seed": 0})


def test_a_key_changes_with_what_a_ticket_holds_and_not_with_where_it_was_made() -> None:
    mask = Mask({"w": torch.tensor([True, False])})
    keys = {
        unit_key(work, {"given": make_ticket(mask, {"w": torch.tensor(w)}, study=study)})
        for w, study in (([1.0, 2.0], "a"), ([1.0, 3.0], "b"), ([2.0, 2.0], "a"))
    }  # the second value is removed by the mask
    assert len(keys) == 2


def test_provenance_names_versions_code_data_and_device(tmp_path: Path) -> None:
    params = tiny.colt()
    facts = results.provenance(colt_study.phases, params, "abc", tmp_path)
    assert facts["torch"] == torch.__version__.split("+")[0] or facts["torch"] == torch.__version__
    assert facts["numpy"] == np.__version__
    assert facts["code"] == fingerprint(
        colt_study.phases, strings=strings_in(params.model_dump(mode="json"))
    )
    assert (facts["data"], facts["device"]) == ("abc", "cpu")
    there = results.made_here(params.runtime) | {"kind": "cuda", "torch": "2.11.0"}
    write_json(tmp_path / results.ELSEWHERE, there)
    moved = results.provenance(colt_study.phases, params, "abc", tmp_path)
    assert moved == facts | {"device": "cuda", "torch": "2.11.0"}


# --- folders, tables, metrics


def test_pages_go_to_the_staging_folder_where_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TICKETLAB_PAGES", raising=False)
    monkeypatch.setattr(results, "ROOT", tmp_path)
    assert results.pages_folder("desk", "colt") == tmp_path / "results/desk/colt"
    assert results.runs_folder("desk", "colt") == tmp_path / "results/desk/runs/colt"
    monkeypatch.setenv("TICKETLAB_PAGES", str(tmp_path / "staging"))
    assert results.pages_folder("desk", "colt") == tmp_path / "staging"
    assert results.runs_folder("desk", "colt") == tmp_path / "results/desk/runs/colt"


def test_a_table_has_six_digits_unix_lines_and_no_index(tmp_path: Path) -> None:
    frame = pd.DataFrame({"arm": ["imp", "a, b"], "x": [1 / 3, 1e-9], "n": [1, 2]}, index=[5, 6])
    write_table(frame, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes() == b'arm,x,n\nimp,0.333333,1\n"a, b",1e-09,2\n'


def test_metrics_are_rounded_sorted_and_plain(tmp_path: Path) -> None:
    tree = {"b": {5: 1 / 3, "a": [2 / 3, None]}, "a": (1, True, "x"), "n": 123456789}
    write_metrics(tree, tmp_path / "m.json")
    text = (tmp_path / "m.json").read_text()
    assert text.index('"a"') < text.index('"b"') and text.endswith("}\n")
    assert read_json(tmp_path / "m.json") == {
        "a": [1, True, "x"],
        "b": {"5": 0.333333, "a": [0.666667, None]},
        "n": 123456789,
    }


def test_metrics_refuse_what_json_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_metrics({"accuracy": float("nan")}, tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()
