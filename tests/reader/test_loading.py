"""Tickets by address: which one it names, what it holds, and that changed files are refused."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import Message

import ticketlab
from ticketlab import models
from ticketlab.files import write_json
from ticketlab.pruning.masks import Mask, ones, prune
from ticketlab.reader import sources
from ticketlab.reader.addresses import parse
from ticketlab.reader.loading import load
from ticketlab.reader.sources import Project, export, scores_of
from ticketlab.tickets.ticket import Outcome, make_ticket, round_name, save_ticket

SPEC = models.ModelSpec(name="conv3", width=4, conv_bias=False)
SHAPE = (1, 14, 14)
FACTS = {"model": SPEC.model_dump(mode="json"), "shape": SHAPE, "classes": 10}
RATES = {0: 0.0, 7: 0.79, 13: 0.945, 14: 0.956}


def masked(net: torch.nn.Module, sparsity: float) -> Mask:
    dense = ones(net, models.prunable(net, "conv"))
    weights = {name: net.get_parameter(name).detach().abs() for name in dense}
    return prune(weights, dense, sparsity)


def add_unit(root: Path, unit: str, holds: str, seed: int = 100) -> None:
    """Store a unit of COLT with a ticket per round of RATES, as a study does."""
    net = models.build(SPEC, SHAPE, 10, seed=seed)
    folder = root / "results" / "desk" / "runs" / "colt" / unit / f"seed-{seed}"
    arm = unit.rpartition("/")[2]
    for index, rate in RATES.items():
        mask = masked(net, rate)
        weights = None if holds == "mask" else net.state_dict()
        trained = {n: w + 1 for n, w in net.state_dict().items()}
        outcome = Outcome(trained, torch.ones(3, 10)) if "outcome" in holds else None
        origin = {"arm": arm, "seed": seed, "round": index, "study": "desk", "paper": "colt"}
        parameters = {"setting": {"data": {"name": "digits"}, "recipe": {"lr": 0.002}}}
        ticket = make_ticket(mask, weights, None, outcome, **FACTS, **origin, parameters=parameters)
        save_ticket(ticket, folder / f"{round_name(index)}.safetensors")
    rounds = [{"round": i, "last_accuracy": 90.0 - i, "path": "plain"} for i in RATES]
    record = {"arm": arm, "rounds": rounds}
    made = {"key": "the key", "instruction_set": "avx2", "record": record, "tickets": []}
    write_json(folder.with_suffix(".json"), made)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    add_unit(root, "search/imp", "mask, weights and outcome")
    add_unit(root, "late/search/imp", "mask", seed=101)
    add_unit(root, "search/colt", "mask")
    add_unit(root, "score/colt", "mask and weights")
    write_json(root / "results" / "desk" / "prac" / "metrics.json", {})
    return root


# --- which ticket an address names


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("desk/colt/imp/seed-100@95", "desk/colt/search/imp/seed-100@round-13"),
        ("desk/colt/imp/seed-100@95.5%", "desk/colt/search/imp/seed-100@round-14"),
        ("desk/colt/search/imp/seed-100@0", "desk/colt/search/imp/seed-100@round-00"),
        ("desk/colt/imp/seed-100@round-07", "desk/colt/search/imp/seed-100@round-07"),
        ("desk/colt/late/search/imp/seed-101@80", "desk/colt/late/search/imp/seed-101@round-07"),
        ("desk/colt/colt/seed-100@95", "desk/colt/score/colt/seed-100@round-13"),
    ],
)
def test_an_address_names_a_ticket(project: Path, address: str, found: str) -> None:
    """The nearest sparsity, the shortest path, and of equal masks the file that holds more."""
    assert load(address, project).address == found


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("desk/colt/imp@95", "allowed is STUDY/PAPER/ARM/seed-N@LEVEL"),
        ("desc/colt/imp/seed-100@95", "study: no ticket has 'desc'; do you mean desk?"),
        ("desk/cold/imp/seed-100@95", "do you mean colt?"),
        ("desk/colt/inp/seed-100@95", "do you mean imp?"),
        ("desk/colt/zzzz/seed-100@95", "there are: colt, imp, late/search/imp, score/colt"),
        ("desk/colt/imp/seed-7@95", "seed-100"),
        ("desk/colt/imp/seed-100@50", "has no ticket at '50' within a factor 1.25 of its density"),
        ("desk/colt/imp/seed-100@round-03", "there are: round-00 (0 %), round-07 (79"),
        ("desk/prac/imp/seed-100@95", "those of desk/prac are not here; `dvc pull results/desk/"),
    ],
)
def test_what_is_not_there_is_one_line_with_what_is(
    project: Path, address: str, said: str, one_line: Message
) -> None:
    assert said in one_line(lambda: load(address, project))


def test_a_folder_without_a_project_says_how_to_get_tickets(
    tmp_path: Path, one_line: Message
) -> None:
    assert "source=FILE" in one_line(lambda: load("desk/colt/imp/seed-100@95", tmp_path))


def test_a_paper_may_keep_records_without_tickets(tmp_path: Path, one_line: Message) -> None:
    made = {"key": "the key", "instruction_set": "avx2", "record": {}, "tickets": []}
    write_json(tmp_path / "results/desk/runs/seekers/gates/seed-100.json", made)
    kept = Project(tmp_path)
    assert kept.places("desk/seekers") == [] and len(kept.files("desk/seekers")) == 1
    said = one_line(lambda: load("desk/seekers/gates/seed-100@95", tmp_path))
    assert said == "tickets: the units of desk/seekers keep none, only records"


def test_units_with_different_masks_are_not_chosen_between(
    tmp_path: Path, one_line: Message
) -> None:
    add_unit(tmp_path, "main/imp", "mask")
    add_unit(tmp_path, "main/imp", "mask", seed=101)
    other = tmp_path / "results/desk/runs/colt/noisy/imp/seed-100"
    other.mkdir(parents=True)
    for path in (tmp_path / "results/desk/runs/colt/main/imp/seed-101").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    message = one_line(lambda: load("desk/colt/imp/seed-100@95", tmp_path))
    assert "desk/colt/main/imp/seed-100@round-13 and desk/colt/noisy/imp/seed-100" in message
    assert load("desk/colt/noisy/imp/seed-100@95", tmp_path).ticket.metadata["seed"] == 101


def test_a_level_is_a_percentage_or_a_name() -> None:
    levels = {"95": 0.95, "99.5%": 0.995, "0": 0.0, "round-03": None, "nan": None, "lth-90": None}
    for text, sparsity in levels.items():
        assert parse(f"a/b/c/seed-1@{text}").sparsity == sparsity


# --- what a ticket gives


def test_a_ticket_is_a_network_a_state_and_a_card(project: Path) -> None:
    found = load("desk/colt/imp/seed-100@95", project)
    start = models.build(SPEC, SHAPE, 10, seed=100).state_dict()
    assert found.mask == masked(models.build(SPEC, SHAPE, 10, seed=100), 0.945)
    for name, weight in found.network().state_dict().items():
        expected = start[name] * found.mask[name] if name in found.mask else start[name]
        assert torch.equal(weight, expected) and torch.equal(found.state_dict()[name], expected)
        assert torch.equal(found.state_dict(trained=True)[name], start[name] + 1)
        assert torch.equal(found.network(trained=True).state_dict()[name], start[name] + 1)
    assert found.network()(torch.zeros(2, *SHAPE)).shape == (2, 10)
    assert found.outcome is not None and found.outcome.logits.shape == (3, 10)
    card = found.card()
    rows = dict(line.strip("| ").split(" | ", 1) for line in card.splitlines() if "| " in line)
    wanted = {"paper": "colt", "arm": "imp", "seed": "100", "data": "digits", "round": "13",
              "instruction set": "avx2", "last_accuracy": "77", "setting.recipe.lr": "0.002",
              "mask": found.mask.digest(), "file": found.sha256}  # fmt: skip
    assert {key: rows.get(key) for key in wanted} == wanted
    assert "94.51 % removed" in card and "round-13" in repr(found)


def test_a_state_dict_is_a_copy(project: Path) -> None:
    found = load("desk/colt/imp/seed-100@95", project)
    before = found.mask.digest(), load("desk/colt/imp/seed-100@95", project).sha256
    for tensor in found.state_dict().values():
        tensor.fill_(7)
    assert found.state is not None and not any((t == 7).all() for t in found.state.values())
    assert before == (found.mask.digest(), found.sha256)


def test_what_was_not_stored_is_one_line(project: Path, one_line: Message) -> None:
    found = load("desk/colt/late/search/imp/seed-101@95", project)
    assert found.state is None and found.outcome is None
    assert "only its mask was stored" in one_line(found.state_dict)
    assert "no weights" in one_line(found.network)
    assert "trained weights were not stored" in one_line(lambda: found.state_dict(trained=True))


def test_a_row_of_scores_is_taken_only_if_it_is_the_one() -> None:
    rows = [{"method": "snip", "label": "0.1", "weak": 0.5}, {"method": "snip", "label": "gt",
            "weak": 0.7, "ok": True, "lost": float("nan")}]  # fmt: skip
    assert scores_of({"rows": rows}, {"arm": "snip"}, "snip-gt") == {"weak": 0.7}
    assert scores_of({"rows": [{"arm": "a", "x": 1}] * 2}, {"arm": "a"}, "ticket") == {}
    assert scores_of({}, {"arm": "a"}, "ticket") == {}


# --- changed files


def test_one_flipped_bit_is_refused(project: Path, tmp_path: Path, one_line: Message) -> None:
    name = "results/desk/runs/colt/search/imp/seed-100/round-13.safetensors"
    copy = tmp_path / name
    copy.parent.mkdir(parents=True)
    content = bytearray((project / name).read_bytes())
    copy.write_bytes(content)
    load("desk/colt/imp/seed-100@95", tmp_path)
    content[-1] ^= 1
    copy.write_bytes(content)
    assert "does not match its SHA-256" in one_line(
        lambda: load("desk/colt/imp/seed-100@95", tmp_path)
    )


# --- archives


@pytest.fixture(params=["tickets.zip", "tickets.tar"])
def archive(request: pytest.FixtureRequest, project: Path, tmp_path: Path) -> Path:
    path: Path = tmp_path / request.param
    export(Project(project), Project(project).places("desk/colt"), path)
    return path


def test_an_archive_gives_the_same_tickets(archive: Path, project: Path) -> None:
    for address in ("desk/colt/imp/seed-100@95", "desk/colt/colt/seed-100@round-07"):
        one, other = load(address, archive), load(address, project)
        assert one.card() == other.card() and one.sha256 == other.sha256
    again = archive.with_name(f"again{archive.suffix}")
    export(Project(project), Project(project).places("desk/colt"), again)
    assert again.read_bytes() == archive.read_bytes()
    assert sorted(p.name for p in archive.parent.iterdir()) == sorted([archive.name, again.name])


def repacked(archive: Path, name: str, change: bytes | None) -> Path:
    """The archive with one file replaced, or without it, as a .tar."""
    files: dict[str, bytes] = {}
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as packed:
            files = {one: packed.read(one) for one in packed.namelist()}
    else:
        with tarfile.open(archive) as packed_tar:
            files = {one: packed_tar.extractfile(one).read() for one in packed_tar.getnames()}  # type: ignore[union-attr]
    files.pop(name)
    if change is not None:
        files[name] = change
    path = archive.with_name("changed.tar")
    with sources._packing(path, ".tar") as add:
        for one, content in files.items():
            add(one, content)
    return path


def test_a_changed_archive_is_one_line(archive: Path, project: Path, one_line: Message) -> None:
    address, member = "desk/colt/imp/seed-100@95", "desk/colt/search/imp/seed-100/round-13"
    good = (
        project / "results/desk/runs/colt/search/imp/seed-100/round-14.safetensors"
    ).read_bytes()
    for name, change, said in [
        (f"{member}.safetensors", good, "does not match the SHA-256 of manifest.json"),
        (f"{member}.safetensors", None, "round-13.safetensors is missing"),
        ("manifest.json", None, "manifest.json is missing"),
        ("manifest.json", b"{", "not readable JSON"),
        ("manifest.json", b'{"format": "other", "ticketlab": "1", "tickets": {}}', "format"),
    ]:
        path = repacked(archive, name, change)
        assert said in one_line(lambda path=path: load(address, path))  # type: ignore[misc]


def test_one_flipped_bit_of_an_archive_is_refused(
    archive: Path, project: Path, one_line: Message
) -> None:
    name = "results/desk/runs/colt/search/imp/seed-100/round-14.safetensors"
    whole, ticket = bytearray(archive.read_bytes()), (project / name).read_bytes()
    whole[whole.index(ticket) + len(ticket) - 1] ^= 1
    archive.write_bytes(whole)
    assert str(archive) in one_line(lambda: load("desk/colt/imp/seed-100@round-14", archive))
    load("desk/colt/imp/seed-100@round-13", archive)


def test_what_is_no_archive_is_one_line(archive: Path, one_line: Message) -> None:
    address = "desk/colt/imp/seed-100@95"
    archive.write_bytes(b"no archive")
    assert "not a readable archive" in one_line(lambda: load(address, archive))
    assert "no such file" in one_line(lambda: load(address, archive.with_name("none.zip")))


def test_a_damaged_ticket_is_not_exported(project: Path, tmp_path: Path, one_line: Message) -> None:
    name = "results/desk/runs/colt/search/imp/seed-100/round-13.safetensors"
    copy = tmp_path / name
    copy.parent.mkdir(parents=True)
    content = bytearray((project / name).read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    kept = Project(tmp_path)
    message = one_line(lambda: export(kept, kept.places("desk/colt"), tmp_path / "a.zip"))
    assert "SHA-256" in message and not list(tmp_path.glob("*a.zip*"))
    assert "ends in .zip or .tar" in one_line(lambda: export(kept, [], tmp_path / "a.rar"))


# --- the package


def test_importing_the_package_is_light_and_load_comes_when_asked_for() -> None:
    code = (
        "import sys, ticketlab; print('torch' in sys.modules, ticketlab.__version__); "
        "print(ticketlab.load.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", ticketlab.__version__, "ticketlab.reader.loading"]
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        ticketlab.lode  # noqa: B018
