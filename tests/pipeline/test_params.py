"""params.yaml and studies/: all is valid, and every mistake is one line with what is allowed."""

import ast
import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from conftest import Message
from ruamel.yaml import YAML

from ticketlab.papers.colt.params import ColtParams, check
from ticketlab.pipeline.params import (
    PAPERS,
    collect,
    data_names,
    load_all,
    load_paper,
    load_runs,
    load_study,
    load_workers,
    notebook_parameters,
    read_studies,
    read_yaml,
    run_of,
    validate,
)
from ticketlab.spec import ROOT, Spec

PARAMS = read_yaml(ROOT / "params.yaml")
WITH_ABLATIONS = read_yaml(ROOT / "studies" / "desk_long.yaml")
STUDIES = {name: block for name, (block, _) in read_studies().items()}
RUN = {"study": "desk", "paper": "colt", "file": "params.yaml", "key": "desk.colt"}

Writer = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Writes params.yaml: a text, or the desk's COLT block with keys (dotted) replaced."""

    def written(text: str | None = None, **changes: object) -> Path:
        path = tmp_path / "params.yaml"
        if text is not None:
            path.write_text(text)
            return path
        block = copy.deepcopy(WITH_ABLATIONS["colt"])
        for key, value in changes.items():
            *folders, last = key.split(".")
            place: Any = block
            for folder in folders:
                place = place[int(folder) if folder.isdigit() else folder]
            place[last] = value
        with path.open("w") as file:
            content = {"workers": 1, "runs": {"desk-colt": RUN}, "desk": {"colt": block}}
            YAML(typ="safe").dump(content, file)
        return path

    return written


# --- what is there is valid


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_is_valid(study: str) -> None:
    found = load_study(study)
    assert found and set(found) <= set(PAPERS)
    assert all(type(params) is PAPERS[paper] for paper, params in found.items())
    last = list(found)[-1]
    assert load_paper(study, last) == found[last]


def test_desk_is_what_runs_and_each_study_of_the_papers_protocols_is_a_file() -> None:
    assert {"cifar10", "cifar100", "paper"} <= {path.stem for path in ROOT.glob("studies/*.yaml")}
    assert {run.name for run in load_runs()} == {f"desk-{paper}" for paper in STUDIES["desk"]}


@pytest.mark.parametrize("study", STUDIES)
def test_every_key_is_spelled_out(study: str) -> None:
    """No default hides in the code: what a reader does not see, `dvc params diff` does not show.

    But for Plant 'n' Seek's grids: each says what it crosses, and leaves the other axes alone.
    """
    found = load_study(study)
    for paper, values in STUDIES[study].items():
        whole = found[paper].model_dump(mode="json", exclude={"grids"})
        assert spelled({k: v for k, v in values.items() if k != "grids"}) == spelled(whole)


def spelled(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: spelled(value) for key, value in tree.items()}
    return [spelled(branch) for branch in tree] if isinstance(tree, list) else None


def test_a_valid_change_reaches_the_parameters(write: Writer) -> None:
    changes = {"rate": 0.25, "seeds": [7], "recipe.length": "500it", "recipe.lr": 1,
               "data.train": None, "ablations": []}  # fmt: skip
    params = load_paper("desk", "colt", write(**changes))
    assert isinstance(params, ColtParams)
    assert (params.rate, params.seeds, params.recipe.lr) == (0.25, (7,), 1.0)
    assert str(params.recipe.length) == "500it" and params.data.train is None
    assert params.ablations == ()


def test_parameters_cannot_be_changed_afterwards() -> None:
    params = tiny.colt()
    with pytest.raises(ValueError, match="frozen"):
        params.rate = 0.5


# --- mistakes within a block


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("rates", 0.2, "rates: unknown key, allowed: data, model, prunable, recipe, rewind, "),
        ("recipe.momentm", 0.9, "recipe.momentm: unknown key, allowed: optimizer, lr, momentum, "),
        ("transfer.data.augment.blur", 1,
         "transfer.data.augment.blur: unknown key, allowed: crop, flip, rotate"),
        ("ablations.0.vote", 1,
         "ablations.0.vote: unknown key, allowed: split, partitions, votes, layerwise, seeds"),
        ("target", 1.0, "target: 1.0 is not valid, allowed is less than 1"),
        ("rate", 0.0, "rate: 0.0 is not valid, allowed is greater than 0"),
        ("rate", float("nan"), "rate: nan is not valid, allowed is a finite number"),
        ("recipe.lr", float("inf"), "recipe.lr: inf is not valid, allowed is a finite number"),
        ("levels", [0.5, 1.0], "levels.1: 1.0 is not valid, allowed is less than 1"),
        ("levels", 0.5, "levels: 0.5 is not valid, allowed is a valid tuple"),
        ("rate", "0.2", "rate: '0.2' is not valid, allowed is a valid number"),
        ("rate", True, "rate: True is not valid, allowed is a valid number"),
        ("max_rounds", "30", "max_rounds: '30' is not valid, allowed is a valid integer"),
        ("max_rounds", True, "max_rounds: True is not valid, allowed is a valid integer"),
        ("max_rounds", 30.0, "max_rounds: 30.0 is not valid, allowed is a valid integer"),
        ("max_rounds", 0, "max_rounds: 0 is not valid, allowed is greater than or equal to 1"),
        ("data.validation", True, "data.validation: True is not valid, allowed is a valid integer"),
        ("data.augment.crop", 2.5,
         "data.augment.crop: 2.5 is not valid, allowed is a valid integer"),
        ("data.name", 10, "data.name: 10 is not valid, allowed is a valid string"),
        ("recipe.nesterov", "no", "recipe.nesterov: 'no' is not valid, allowed is a valid boolean"),
        ("recipe.nesterov", 0, "recipe.nesterov: 0 is not valid, allowed is a valid boolean"),
        ("recipe.lr", "1e-3", "recipe.lr: '1e-3' is not valid, allowed is a valid number"),
        ("recipe.lr", None, "recipe.lr: None is not valid, allowed is a valid number"),
        ("recipe.optimizer", "rmsprop",
         "recipe.optimizer: 'rmsprop' is not valid, allowed is 'sgd' or 'adam'"),
        ("recipe.length", 3,
         "recipe.length: 3 is not valid, allowed is a step such as '3ep', '500it' or '40%'"),
        ("rewind", "2 epochs",
         "rewind: '2 epochs' is not valid, allowed is a step such as '3ep', '500it' or '40%'"),
        ("prune_from", "best",
         "prune_from: 'best' is not valid, allowed is 'last' or 'validation'"),
        ("runtime.device", "gpu",
         "runtime.device: 'gpu' is not valid, allowed is 'auto', 'cuda', 'mps' or 'cpu'"),
        ("runtime.workers", 2, "runtime.workers: unknown key, allowed: device, precision, "),
        ("transfer.seeds", -1,
         "transfer.seeds: -1 is not valid, allowed is greater than or equal to 0"),
        ("seeds", [0, 0], "seeds: [0, 0] is not valid, allowed are seeds that differ"),
        ("seeds", [-1], "seeds.0: -1 is not valid, allowed is greater than or equal to 0"),
        ("seeds", [10**6], "seeds.0: 1000000 is not valid, allowed is less than 1000000"),
        ("seeds", 3, "seeds: 3 is not valid, allowed is a valid tuple"),
        ("recipe", 5, "recipe: 5 is not valid, allowed is a valid dictionary"),
        ("data", None, "data: None is not valid, allowed is a valid dictionary"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_key_value_and_what_is_allowed(
    key: str, value: object, expected: str, write: Writer, one_line: Message
) -> None:
    path = write(**{key: value})
    assert one_line(lambda: load_study("desk", path)).startswith(
        f"params.yaml: desk.colt.{expected}"
    )
    assert one_line(lambda: load_paper("desk", "colt", path)).startswith("params.yaml: desk.colt.")


@pytest.mark.parametrize("key", ["seeds", "levels"])
def test_an_empty_list_is_refused(key: str, write: Writer, one_line: Message) -> None:
    message = one_line(lambda: load_study("desk", write(**{key: []})))
    assert (
        message.startswith(f"params.yaml: desk.colt.{key}: [] is not valid")
        and "at least 1" in message
    )


@pytest.mark.parametrize("key", ["recipe", "transfer.data", "model.name", "data.name"])
def test_a_missing_key_is_named(key: str, write: Writer, one_line: Message) -> None:
    block = read_yaml(write())["desk"]
    *folders, last = key.split(".")
    place = block["colt"]
    for folder in folders:
        place = place[folder]
    del place[last]
    message = one_line(lambda: validate(ColtParams, block["colt"], "params.yaml: desk.colt"))
    assert message == f"params.yaml: desk.colt.{key}: missing, this key is needed"


def test_further_mistakes_are_counted(write: Writer, one_line: Message) -> None:
    path = write(rate=2.0, target="x", max_rounds=0)
    message = one_line(lambda: load_study("desk", path))
    assert (
        message
        == "params.yaml: desk.colt.rate: 2.0 is not valid, allowed is less than 1 (and 2 more)"
    )


# --- mistakes that only show with the data (`check` runs before any training)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"partitions": 3}, ["partitions: 3", "10 classes", "1, 2, 5"]),
        ({"partitions": 11}, ["partitions: 11", "10 classes", "1, 2, 5"]),
        ({"ablations": [{"partitions": 20}]}, ["partitions: 20", "1, 2, 5"]),
        ({"ablations": [{"partitions": 5, "votes": 6}]}, ["votes: 6", "0 to 5"]),
        ({"ablations": [{"split": "random", "partitions": 2}]}, ["ablations: colt-random-2of2"]),
        ({"model": {"name": "conv3", "depth": 3}}, ["model.depth", "3", "mlp"]),
        ({"model": {"name": "vgg16_bn"}}, ["model.name", "'vgg16_bn'", "7x7", "16x16"]),
        ({"data": tiny.DIGITS.model_dump() | {"name": "nonesuch"}}, ["'nonesuch'", "nonesuch.npz"]),
        ({"data": tiny.DIGITS.model_dump() | {"train": 10_000}}, ["train", "10000"]),
        ({"recipe": {"length": "40%"}}, ["recipe.length: '40%'", "'ep' or 'it'"]),
        ({"recipe": {"length": "0ep"}}, ["recipe.length: '0ep'", "at least 1"]),
        ({"rewind": "9999it"}, ["rewind: '9999it'", "beyond"]),
        ({"prune_from": "validation", "data": tiny.DIGITS.model_dump() | {"validation": 0}},
         ["prune_from: 'validation'", "data.validation"]),
        ({"model": {"name": "conv2"}, "transfer": {"data": tiny.DIGITS.model_dump() | {"pool": 1}}},
         ["transfer.data: ", "(1, 28, 28)", "conv2", "(1, 14, 14)", "pools globally"]),
        ({"model": {"name": "conv2"}, "resized": {"data": tiny.DIGITS.model_dump() | {"pool": 1}}},
         ["resized.data: ", "(1, 28, 28)", "pools globally"]),
        ({"resized": {"data": tiny.DIGITS.model_dump() | {"pool": 4}}}, ["7x7", "8x8 pixels"]),
        ({"late": {"rewind": "0it"}}, ["late.rewind: '0it'", "after rewind ('0it')"]),
        ({"late": {"rewind": "9999it"}}, ["late.rewind: '9999it'", "of 5 iterations"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_data_is_refused_in_one_line(
    changes: dict[str, object], words: list[str], tiny_root: Path, one_line: Message
) -> None:
    if "model" in changes and changes["model"] == {"name": "vgg16_bn"}:  # 14 pixels, pooled to 7
        small = tiny.DIGITS.model_dump() | {"pool": 4}
        changes = changes | {"data": small, "transfer": {"data": small, "levels": [0.7]}}
    message = one_line(lambda: check(tiny.colt(**changes)))
    assert all(word in message for word in words), message


def test_what_fits_is_not_refused(tiny_root: Path) -> None:
    check(tiny.colt())
    check(tiny.colt(partitions=5, ablations=[{"partitions": 5, "votes": 4}, {"split": "same"}]))
    larger = {"data": tiny.DIGITS.model_dump() | {"pool": 1}}  # conv3 pools globally
    check(tiny.colt(transfer=larger, resized=larger, late={"rewind": "5it"}))


# --- the file as a whole


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "", "desk\n", "3\n", "~\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str, write: Writer, one_line: Message) -> None:
    path = write(text)
    message = one_line(lambda: load_study("desk", path))
    assert message.startswith(f"{path}: holds ") and message.endswith("allowed is a mapping")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("desk: [\n", ["line 2"]),
        ("desk:\n  colt: {seeds: [0]}\ndesk: {}\n", ["duplicate key", "desk", "line 3"]),
        ("desk: {colt: {rate: 0.1, rate: 0.2}}\n", ["duplicate key", "rate"]),
        ("desk:\n\tcolt: 1\n", ["line 2"]),
        ("desk: *base\n", ["undefined alias", "base"]),
        ("desk: !!python/object:os.system x\n", ["os.system"]),
        ("\x00\n", []),
        ("desk: {colt: {rate: !!int many}}\n", ["'many'"]),
        ("desk: {colt: {rate: !!float x}}\n", ["'x'"]),
        ("desk: " + "[" * 2000 + "]" * 2000 + "\n", ["recursion"]),
        ("desk: {colt: {max_rounds: " + "9" * 5000 + "}}\n", ["digits"]),
        ("desk: {}\n---\ndesk: {}\n", ["single document", "line 2"]),
        ("desk: {<<: 3}\n", ["merging"]),
    ],
)
def test_a_file_that_is_no_yaml_is_one_line(
    text: str, words: list[str], write: Writer, one_line: Message
) -> None:
    path = write(text)
    message = one_line(lambda: load_study("desk", path))
    assert message.startswith(f"{path}: not valid YAML (") and all(
        word in message for word in words
    )


def test_a_missing_file_is_one_line(tmp_path: Path, one_line: Message) -> None:
    path = tmp_path / "none.yaml"
    assert one_line(lambda: load_study("desk", path)) == f"{path}: no such file"


def test_yaml_is_read_as_version_1_2(write: Writer) -> None:
    text = "a: 1e-3\nb: no\nc: on\nd: 010\ne: 0o10\nf: ~\ng: 1:30\nh: yes\ni: true\nj: 3ep\n"
    found = read_yaml(write(text))
    assert found == {"a": 0.001, "b": "no", "c": "on", "d": 10, "e": 8, "f": None, "g": "1:30",
                     "h": "yes", "i": True, "j": "3ep"}  # fmt: skip
    assert isinstance(found["a"], float) and isinstance(found["d"], int)


def test_numbers_with_exponents_are_numbers_in_a_block(write: Writer) -> None:
    text = write().read_text().replace("lr: 0.002", "lr: 2e-3")
    assert "lr: 2e-3" in text
    params = load_paper("desk", "colt", write(text))
    assert isinstance(params, ColtParams) and params.recipe.lr == 0.002


def test_unknown_studies_and_papers_are_named(write: Writer, one_line: Message) -> None:
    path = write()
    papers = ", ".join(PAPERS)
    assert one_line(lambda: load_study("dsk", path)) == ("study: 'dsk' is unknown, allowed: desk")
    assert "'runs'" in one_line(lambda: load_study("runs", path))  # a setting, not a study
    message = one_line(lambda: load_paper("desk", "cold", path))
    assert message == f"paper: 'cold' is unknown, allowed: {papers}"
    message = one_line(lambda: load_study("desk", write("desk: {cold: {}}\n")))
    assert message == f"params.yaml: desk: 'cold' unknown, allowed: {papers}"


NO_BLOCKS = ["desk: 3\n", "desk: [colt]\n", "desk: ~\n", "desk: {}\n", "desk: {colt: 3}\n",
             "desk: {colt: ~}\n", "desk: {3: {}}\n",
             "desk: &d {colt: *d}\n", "desk: {colt: &c {rate: [*c]}}\n"]  # fmt: skip


@pytest.mark.parametrize("text", NO_BLOCKS)
def test_a_block_that_is_no_mapping_is_one_line(
    text: str, write: Writer, one_line: Message
) -> None:
    message = one_line(lambda: load_study("desk", write(text)))
    assert message.startswith("params.yaml: desk") and "allowed" in message


def test_a_mistake_in_any_block_is_found_from_every_other(write: Writer, one_line: Message) -> None:
    content = read_yaml(write())
    content["other"] = copy.deepcopy(content["desk"])
    content["other"]["colt"]["recipe"]["wieght_decay"] = 0.5
    path = write(dumped(content))
    message = "params.yaml: other.colt.recipe.wieght_decay: unknown key, allowed: optimizer, lr, "
    assert one_line(lambda: load_study("desk", path)).startswith(message)
    assert one_line(lambda: load_paper("desk", "colt", path)).startswith(message)


def dumped(content: object) -> str:
    stream = io.StringIO()
    YAML(typ="safe").dump(content, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "name",
    [2024, "2024", "my.study", "my study", "my/study", "..", "", "-x", "a\nb", "étude", True, None,
     1.5, "x" * 65, "smoke", "a@b", "a$b"],
)  # fmt: skip
def test_one_rule_says_what_a_study_may_be_called(
    name: object, write: Writer, one_line: Message
) -> None:
    content = read_yaml(write())
    content[name] = content["desk"]
    path = write(dumped(content))
    message = one_line(lambda: load_study("desk", path))
    assert message.startswith(
        f"params.yaml: {name!r} cannot name a study, allowed: a letter, then "
    )
    content["My-study_2"] = content.pop(name)
    assert set(load_all(write(dumped(content)))) == {"desk", "My-study_2"}


@pytest.mark.parametrize("name", ["../x", "a b", "a.b", "", "1st", "a\nb", 7])
def test_nets_beds_and_cases_follow_the_same_rule(name: object, one_line: Message) -> None:
    """Each is a folder of its study's results."""
    for paper, place in (("prac", "others"), ("dlth", "others"), ("compare", "beds"),
                         ("dlth", None)):  # fmt: skip
        block = copy.deepcopy((WITH_ABLATIONS | {"compare": PARAMS["desk"]["compare"]})[paper])
        (block[place][0] if place else block)["name"] = name
        message = one_line(lambda kind=PAPERS[paper], block=block: validate(kind, block, "x"))
        assert "name: " in message and ("a letter, then" in message or "valid string" in message)


def test_a_data_set_is_named_as_its_file(write: Writer, one_line: Message) -> None:
    for name in ("../../x", "/etc/x", "", "a b", ".hidden"):
        path = write(**{"data.name": name})
        message = one_line(lambda path=path: load_study("desk", path))
        assert message.startswith(
            f"params.yaml: desk.colt.data.name: {name!r} is not valid, allowed"
        )
    load_study("desk", write(**{"data.name": "my.images-2"}))


RUNS: list[tuple[object, str]] = [
    (None, ": None is not valid, allowed is a mapping"),
    (["desk"], ": ['desk'] is not valid, allowed is a mapping"),
    ({"desk-colt": RUN | {"study": "dsk"}}, ".desk-colt.study: 'dsk' is unknown, allowed: desk"),
    ({"desk-colt": RUN | {"paper": "prac"}}, ".desk-colt.paper: desk has no 'prac', allowed: colt"),
    ({"desk-colt": RUN | {"key": "colt"}}, ".desk-colt.key: 'colt' is not valid, allowed is 'des"),
    ({"desk-colt": RUN | {"file": "x"}}, ".desk-colt.file: 'x' is not valid, allowed is 'params"),
    ({"colt": RUN}, ".colt: this name is not valid, allowed is desk-colt, once"),
    (
        {"desk-colt": RUN, "x": RUN},
        ".desk-colt: this name is not valid, allowed is desk-colt, once",
    ),
    ({"desk-colt": RUN | {"seeds": 3}}, ".desk-colt.seeds: unknown key, allowed: study, paper, "),
]


@pytest.mark.parametrize(("runs", "expected"), RUNS)
def test_a_run_has_a_study_a_paper_and_their_place(
    runs: object, expected: str, write: Writer, one_line: Message
) -> None:
    path = write(dumped(read_yaml(write()) | {"runs": runs}))
    assert one_line(lambda: load_study("desk", path)).startswith(f"params.yaml: runs{expected}")


@pytest.mark.parametrize("workers", [-1, 257, True, "two", "dask:", 1.0, None])
def test_the_number_of_workers_is_checked(
    workers: object, write: Writer, one_line: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TICKETLAB_WORKERS", raising=False)
    path = write(dumped(read_yaml(write()) | {"workers": workers}))
    allowed = "allowed is 0 to 256, or 'dask:' and a scheduler's address"
    message = f"params.yaml: workers: {workers!r} is not valid, {allowed}"
    assert one_line(lambda: load_study("desk", path)) == message


def test_the_environment_overrides_the_number_of_workers(
    write: Writer, one_line: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TICKETLAB_WORKERS", raising=False)
    path = write()
    assert load_workers(path) == 1
    for text, workers in (("3", 3), ("0", 0), ("dask:tcp://a:1", "dask:tcp://a:1")):
        monkeypatch.setenv("TICKETLAB_WORKERS", text)
        assert load_workers(path) == workers
    for text in ("-1", "many", "", "999"):
        monkeypatch.setenv("TICKETLAB_WORKERS", text)
        assert one_line(lambda: load_workers(path)).startswith("TICKETLAB_WORKERS: ")


# --- the studies in files of their own


def test_a_study_may_be_a_file_and_is_checked_with_all_others(
    write: Writer, one_line: Message
) -> None:
    path = write()
    folder = path.parent / "studies"
    folder.mkdir()
    papers = read_yaml(path)["desk"]
    (folder / "mine.yaml").write_text(dumped(papers))
    assert list(load_all(path)) == ["desk", "mine"]
    assert load_paper("mine", "colt", path) == load_paper("desk", "colt", path)
    run = run_of("mine", "colt", path)
    assert (run.file, run.key, run.name) == ("studies/mine.yaml", "colt", "mine-colt")
    papers["colt"]["rates"] = 0.3
    (folder / "mine.yaml").write_text(dumped(papers))
    message = one_line(lambda: load_study("desk", path))
    assert message.startswith("studies/mine.yaml: colt.rates: unknown key, allowed: ")


def test_a_study_is_in_one_place_and_its_file_has_its_name(
    write: Writer, one_line: Message
) -> None:
    path = write()
    (path.parent / "studies").mkdir()
    for name, message in (
        ("desk", "params.yaml has a study 'desk', too"),
        ("my study", "'my study' cannot name a study"),
    ):
        file = path.parent / "studies" / f"{name}.yaml"
        file.write_text(dumped(read_yaml(path)["desk"]))
        assert message in one_line(lambda: load_all(path))
        file.unlink()


def test_endless_values_are_cut(write: Writer, one_line: Message) -> None:
    for value in ("x" * 5000, list(range(5000)), 10**18):
        path = write(rate=value)
        message = one_line(lambda path=path: load_study("desk", path))
        assert message.startswith("params.yaml: desk.colt.rate: ") and len(message) < 300
    message = one_line(lambda: load_study("desk", write(max_rounds=2**63)))
    assert (
        message == "params.yaml: desk.colt.max_rounds: a number of 64 bits, allowed are at most 63"
    )
    load_study("desk", write(max_rounds=2**63 - 1))


# --- into a notebook and back


@pytest.mark.parametrize("study", STUDIES)
def test_parameters_survive_the_way_into_a_notebook(study: str) -> None:
    for params in load_study(study).values():
        injected = notebook_parameters(study, params)
        assert injected["study"] == study and set(injected) == {"study", *type(params).model_fields}
        assert json.loads(json.dumps(injected)) == injected  # plain values, no NaN
        namespace = {"__name__": "__main__", "In": [], "np": json, **injected}
        assert collect(type(params), namespace) == params


@pytest.mark.parametrize("paper", PAPERS)
def test_a_notebooks_parameters_cell_has_every_key(paper: str) -> None:
    text = (ROOT / "notebooks" / f"{paper}.ipynb").read_text()
    (cell,) = (
        c for c in json.loads(text)["cells"] if "parameters" in c["metadata"].get("tags", ())
    )
    names = {node.id for node in ast.walk(ast.parse("".join(cell["source"])))
             if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}  # fmt: skip
    assert names >= {"study", *PAPERS[paper].model_fields}


def test_a_mistake_in_the_parameters_cell_is_one_line(one_line: Message) -> None:
    namespace = notebook_parameters("desk", tiny.colt()) | {"rate": 1.0}
    message = one_line(lambda: collect(ColtParams, namespace))
    assert message == "parameters.rate: 1.0 is not valid, allowed is less than 1"
    del namespace["seeds"], namespace["rate"]
    message = one_line(lambda: collect(ColtParams, namespace))
    assert message == "parameters.seeds: missing, this key is needed"


def test_the_data_sets_of_a_paper_are_found_once_each_at_any_depth() -> None:
    assert data_names(tiny.colt()) == ["digits_tiny"]
    other = tiny.DIGITS.model_dump() | {"name": "another"}
    assert data_names(tiny.colt(transfer={"data": other})) == ["another", "digits_tiny"]
    assert data_names(Spec()) == []
