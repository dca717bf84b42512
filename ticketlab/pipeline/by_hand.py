"""The round that a page does by hand, if the study's units were made on another machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ticketlab.data.sets import DataSpec, load
from ticketlab.spec import Spec
from ticketlab.study.results import made_elsewhere

IMAGES = 500
"""Maximum number of training images, and of validation images, for a round by hand on a machine
without the study's device."""
STEPS = ("ramp", "least_iterations")
"""Parameters that are numbers of iterations but have no unit in their text."""

SpecT = TypeVar("SpecT", bound=Spec)


def by_hand(params: SpecT, folder: Path) -> SpecT:
    """Return the parameters for the round by hand: the study's own, if its units were made here.

    Otherwise a smaller version, so that a page takes minutes without a GPU: at most IMAGES images
    in float32, the same number of epochs, and lengths in iterations in proportion. A line on the
    page states this.
    """
    if made_elsewhere(folder) is None:
        return params
    data: DataSpec = params.data  # type: ignore[attr-defined]
    whole = len(load(data).train)
    count = min(IMAGES, whole)
    print(
        f"the units of this study were made on another machine; by hand: {count} images in "
        "float32, as many epochs, and lengths in iterations in proportion"
    )
    few = {"train": count, "validation": min(data.validation, IMAGES)}
    plain = _fewer_steps(params.model_dump(mode="json"), count / whole)
    changed = {
        "data": plain["data"] | few,
        "runtime": plain["runtime"] | {"precision": "float32"},
    }
    return type(params).model_validate(plain | changed)


def _fewer_steps(tree: Any, share: float) -> Any:
    """Scale all lengths in iterations by a share, to at least one."""
    if isinstance(tree, list):
        return [_fewer_steps(inner, share) for inner in tree]
    if not isinstance(tree, Mapping):
        is_steps = isinstance(tree, str) and tree.endswith("it") and tree[:-2].isdecimal()
        return f"{_few(int(tree[:-2]), share)}it" if is_steps else tree
    return {
        key: _few(inner, share) if key in STEPS else _fewer_steps(inner, share)
        for key, inner in tree.items()
    }


def _few(steps: int, share: float) -> int:
    return max(min(1, steps), round(steps * share))
