"""Records of parameters: no float field anywhere takes an infinity or nan."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from conftest import Message
from pydantic import ValidationError

import ticketlab
from ticketlab.files import read_yaml
from ticketlab.papers.colt.params import ColtParams
from ticketlab.papers.plant_n_seek.params import PlantParams
from ticketlab.pipeline import params
from ticketlab.pipeline.params import collect, load_study, notebook_parameters
from ticketlab.spec import ROOT, Spec
from ticketlab.training.recipe import Step

for module in pkgutil.walk_packages(ticketlab.__path__, "ticketlab."):
    importlib.import_module(module.name)


def records(kind: type[Spec] = Spec) -> Iterator[type[Spec]]:
    """Every record of the package."""
    for record in kind.__subclasses__():
        if record.__module__.startswith("ticketlab."):
            yield record
        yield from records(record)


def leaves(annotation: Any, wrap: Any = lambda value: value) -> Iterator[tuple[Any, Any]]:
    """The types within an annotation, and how a value of each becomes the field's."""
    inner = [part for part in get_args(annotation) if part is not ...]
    if annotation in (float, Step):
        yield annotation, wrap
    elif hasattr(annotation, "__metadata__"):
        yield from leaves(inner[0], wrap)
    elif get_origin(annotation) is tuple:
        for part in inner:
            yield from leaves(part, lambda value, wrap=wrap: wrap([value]))
    elif get_origin(annotation) is dict:
        yield from leaves(inner[1], lambda value: {"a": wrap(value)})
    elif get_origin(annotation) is not None:  # a union
        for part in inner:
            yield from leaves(part, wrap)


PLACES = sorted(
    {
        (record, name, kind, str(wrap(0)))
        for record in records()
        for name, field in record.model_fields.items()
        for kind, wrap in leaves(field.annotation)
    },
    key=str,
)
FLOATS = [(record, name, shape) for record, name, kind, shape in PLACES if kind is float]
STEPS = [(record, name, shape) for record, name, kind, shape in PLACES if kind is Step]


def refusal(record: type[Spec], name: str, value: object, shape: str) -> str:
    """What a record says of one field's value; empty if it says nothing."""
    given = {"[0]": (value,), "{'a': 0}": {"a": value}}.get(shape, value)
    try:
        record.model_validate({name: given})
    except ValidationError as error:
        message = [e["msg"] for e in error.errors() if e["loc"][0] == name]
        return "; ".join(message)
    return ""


def test_the_search_for_fields_finds_those_of_every_kind() -> None:
    names = {f"{record.__name__}.{name}" for record, name, _ in FLOATS}
    assert names >= {
        "Recipe.lr", "ColtParams.rate", "ColtParams.levels", "DataSpec.std", "Augment.rotate",
        "Grid.noise", "Grid.densities", "ConvParams.densities", "Fit.lr", "PopupFit.lr",
        "Stop.epsilon", "Penalty.ceiling", "Claim.at_least", "Published.low", "RstParams.levels",
    }  # fmt: skip
    assert len(STEPS) >= 12


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize(("record", "name", "shape"), FLOATS)
def test_no_float_field_takes_an_infinity(
    record: type[Spec], name: str, shape: str, value: float
) -> None:
    assert "finite number" in refusal(record, name, value, shape)
    assert "finite" not in refusal(record, name, 0.5, shape)


@pytest.mark.parametrize("value", ["infep", "1e400ep", "nan%", "9" * 400 + "ep", "-1ep", "inf"])
@pytest.mark.parametrize(("record", "name", "shape"), STEPS)
def test_no_step_takes_an_infinity(record: type[Spec], name: str, shape: str, value: str) -> None:
    assert "allowed is a step" in refusal(record, name, value, shape)
    assert refusal(record, name, "3ep", shape) == ""


def test_infinities_are_one_line_from_the_file_and_from_a_notebook(
    one_line: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = read_yaml(ROOT / "params.yaml")
    read = params.read_yaml
    monkeypatch.setattr(
        params, "read_yaml", lambda path: content if path == params.FILE else read(path)
    )
    desk = content["desk"]
    desk["colt"]["recipe"]["lr"] = float("inf")
    message = one_line(lambda: load_study("desk"))
    assert (
        message == "params.yaml: desk.colt.recipe.lr: inf is not valid, allowed is a finite number"
    )
    desk["colt"]["recipe"]["lr"] = 0.002
    desk["plant_n_seek"]["grids"][0]["densities"] = ["gt", float("nan")]
    message = one_line(lambda: load_study("desk"))
    assert "plant_n_seek.grids.0.densities.1" in message and "nan is not valid" in message
    assert "a finite number" in message
    desk["plant_n_seek"]["grids"][0]["densities"] = ["gt"]
    for kind, paper, key in ((ColtParams, "colt", "target"), (PlantParams, "plant_n_seek", "fit")):
        namespace = notebook_parameters("desk", load_study("desk")[paper])
        if key == "fit":
            namespace["fit"] = namespace["fit"] | {"lr": float("inf")}
        else:
            namespace[key] = float("-inf")
        message = one_line(lambda kind=kind, space=namespace: collect(kind, space))
        assert message.startswith(f"parameters.{key}") and "finite number" in message
