"""One judgement from parameters to page: units are stored in its folder, so that it resumes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ticketlab import gpu, models, progress
from ticketlab.data.sets import load as load_data
from ticketlab.files import parse_yaml, read_yaml, write_atomically, write_json
from ticketlab.judging import given as masks
from ticketlab.judging import page, report, study
from ticketlab.judging.given import Given
from ticketlab.judging.params import JudgeParams
from ticketlab.pipeline import machine
from ticketlab.pipeline.params import validate
from ticketlab.spec import ROOT, InputError
from ticketlab.study import results, runner
from ticketlab.study.results import Result
from ticketlab.study.store import remove_damaged

PAGE, VERDICT, METRICS = "judge.html", "verdict.json", "metrics.json"
PARAMETERS, PROVENANCE = "params.json", "provenance.json"


def example() -> str:
    """Return the example of a file of parameters, with comments."""
    return (resources.files("ticketlab.judging") / "example.yaml").read_text(encoding="utf-8")


def write_example(path: Path) -> None:
    """Write the example; InputError for a file that exists."""
    if path.exists():
        raise InputError(f"--example: {path} exists already, allowed is a new file")
    write_atomically(path, example().encode())


def parameters(
    path: Path | None = None, model: str = "", data: str = "", seeds: int | None = None
) -> JudgeParams:
    """Return the parameters of a file, or of the example, with replacements.

    `model` replaces the whole model by the one of this name, `data` the name of the data set, and
    `seeds` their number. InputError names a bad key.
    """
    name = "example" if path is None else path.name
    values = parse_yaml(example(), name) if path is None else read_yaml(path)
    if not isinstance(values, Mapping):
        raise InputError(f"{name}: holds {type(values).__name__}, allowed is a mapping")
    changed: dict[str, Any] = dict(values)
    if model:
        changed["model"] = {"name": model}
    if data:
        images = changed.get("data")
        changed["data"] = {**(images if isinstance(images, Mapping) else {}), "name": data}
    if seeds is not None:
        changed["seeds"] = seeds
    return validate(JudgeParams, changed, f"{name}: ")


def load_mask(
    params: JudgeParams, source: str, weights: Path | None = None, archive: Path | None = None
) -> Given:
    """Return the mask of a file or an address, matched to the network of the parameters."""
    data = load_data(params.data)
    model = models.build(params.model, data.shape, data.classes, 0)
    return masks.load(source, model, params.names, weights, archive)


def judge(
    params: JudgeParams, given: Given, folder: Path, workers: int | str = 1
) -> dict[str, Any]:
    """Train what is not stored yet, write the page and the numbers, and return verdict.json."""
    if (ROOT / "results") in folder.resolve().parents:
        raise InputError(f"--out: {folder} is in results/, which is for studies; choose another")
    with _alone(folder):
        found = _trained(params, given, folder, workers)
        return _write(params, given, folder, found)


def _trained(
    params: JudgeParams, given: Given, folder: Path, workers: int | str
) -> dict[str, Result]:
    """Run the units into `folder`, showing progress."""
    study.check_given(params, given)
    units, expected = folder / "units", study.planned_passes(params, given)
    asked = gpu.worker_count(params.runtime, workers)
    remove_damaged(units)
    with progress.Watch(folder / ".events", "judge", expected) as watch:
        found = runner.run_study(study.phases(params, given), units, asked)
    results.forget_others(units, found)
    if watch.seconds:  # at least one unit was trained here
        write_json(folder / machine.FILE, {"judge": machine.describe(params.runtime)})
    return found


def _write(
    params: JudgeParams, given: Given, folder: Path, found: Mapping[str, Result]
) -> dict[str, Any]:
    """Write numbers, provenance and page; the page last, so that it never precedes its numbers."""
    metrics = report.metrics(found, params)
    digest = load_data(params.data).sha256
    origin = results.provenance(study.phases, params, digest, folder / "units")
    origin |= {"mask": given.mask.digest()}
    verdict = page.summary(given, params, metrics)
    results.write_metrics(metrics, folder / METRICS)
    write_json(folder / PARAMETERS, params.model_dump(mode="json"))
    write_json(folder / PROVENANCE, origin | {"files": dict(given.sha256)})
    write_json(folder / VERDICT, verdict)
    html = page.render(given, params, found, metrics, origin)
    write_atomically(folder / PAGE, html.encode())
    return verdict


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock the folder; InputError if another process is working there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: {folder} is no folder ({error.strerror})") from None
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            yield
    except Timeout:
        raise InputError(f"--out: another process is judging in {folder}: wait for it") from None
