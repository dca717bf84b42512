"""A study of seconds for each paper, and the images that they see.

Each function takes changes of fields, in the form that params.yaml has, and validates the whole.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np

from ticketlab.data.sets import DataSpec
from ticketlab.files import read_yaml
from ticketlab.papers.colt.params import ColtParams
from ticketlab.papers.compare.params import BedSetting, CompareParams
from ticketlab.papers.dlth.params import Cell, RstParams
from ticketlab.papers.geometry.params import GeometryParams, GeometrySetting
from ticketlab.papers.plant_n_seek.params import PlantParams
from ticketlab.papers.prac.params import PracParams
from ticketlab.pipeline.params import validate
from ticketlab.spec import ROOT

# --- data

DIGITS = DataSpec(name="digits_tiny", train=200, validation=50, test=100, pool=2)
"""Of the file that the fixture `tiny_folder` makes: images of 14 x 14 pixels."""


def some_images(train: slice, test: slice) -> dict[str, np.ndarray]:
    """The images of mnist_5k at these places of each class, as the arrays of a data file."""
    with np.load(ROOT / "data" / "mnist_5k.npz") as file:
        whole = dict(file)
    found = {}
    for part, places in (("train", train), ("test", test)):
        labels = whole[f"y_{part}"]
        chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[places] for c in range(10)]))
        found |= {f"x_{part}": whole[f"x_{part}"][chosen], f"y_{part}": labels[chosen]}
    return found


RUNTIME = {"device": "cpu"}


# --- COLT

COLT: dict[str, Any] = {
    "seeds": [0, 1],
    "data": DIGITS.model_dump(),
    "model": {"name": "conv3", "width": 4, "conv_bias": False},
    "recipe": {"optimizer": "adam", "lr": 0.01, "batch": 40, "length": "1ep"},
    "rate": 0.4,
    "imp_rate": 0.4,
    "target": 0.7,
    "levels": [0.5, 0.7],
    "transfer": {"data": DIGITS.model_dump(), "levels": [0.7], "seeds": 0},
    "runtime": RUNTIME,
}


def colt(**changes: object) -> ColtParams:
    """COLT and IMP, without tickets moved to other data."""
    return ColtParams.model_validate(deepcopy(COLT) | changes)


# --- PrAC

PRAC_OTHER: dict[str, Any] = {
    "name": "convnet",
    "model": {"name": "conv3_strided", "width": 4},
    "recipe": {"lr": 0.1, "batch": 20, "length": "2ep"},
    "rewind": "1ep",
    "rounds": 2,
    "levels": [2],
    "stop": {"epsilon": 0.05, "window": 1},
}


def prac_other(**changes: object) -> dict[str, Any]:
    """A batch-norm convnet as another net of PrAC's study."""
    return deepcopy(PRAC_OTHER) | changes


PRAC: dict[str, Any] = {
    "seeds": [0, 1],
    "data": DIGITS.model_dump(),
    "model": {"name": "lenet_300_100"},
    "prunable": "hidden",
    "recipe": {"lr": 0.1, "batch": 20, "length": "4ep", "milestones": ["2ep", "3ep"]},
    "rewind": "1ep",
    "rate": 0.5,
    "rounds": 3,
    "levels": [2, 3],
    "stop": {"epsilon": 0.05, "window": 1},
    "shorten": "iterations",
    "least_iterations": 6,
    "thresholds": [1],
    "epsilons": [0.1],
    "variants": [
        {"name": "low-rate", "lr": 0.02},
        {"name": "warm-up", "lr": 0.05, "warmup": "1ep"},
    ],
    "again_rounds": 2,
    "scores": ["el2n", "aum", "dual", "ccs", "fixed"],
    "criteria": ["snip"],
    "probe": 20,
    "ablation_levels": [3],
    "label_noise": 0.1,
    "noise_rounds": 2,
    "others": [PRAC_OTHER],
    "runtime": RUNTIME,
}


def prac(**changes: object) -> PracParams:
    """PrAC with every score of examples, on an MLP and a convnet."""
    return validate(PracParams, deepcopy(PRAC) | changes, "prac")


# --- DLTH

DLTH: dict[str, Any] = {
    "seeds": [0, 1],
    "data": DIGITS.model_dump() | {"pool": 4},  # 7 x 7 pixels
    "model": {"name": "resnet8", "width": 4},
    "levels": [0.5, 0.8],
    "finetune": {"batch": 50, "length": "4it", "milestones": ["50%"]},
    "transform": {"lr": 0.02, "batch": 50, "length": "5it", "schedule": "constant"},
    "penalty": {"ceiling": 10.0, "ramp": 4, "every": 1},
    "iterative": {"cycles": 2, "length": "2it", "ramp": 2},
    "lth_iter": {"cycles": 2, "length": "3it"},
    "early_bird": {"every": "1it", "threshold": 0.9, "queue": 2},
    "arms": [
        *("scratch", "scratch-long", "warm-up", "abrupt", "rst", "rst-iter"),
        *("lth", "lth-iter", "l1", "early-bird"),
    ],
    "extra_arms": [
        *("rst-magnitude", "rst-antimagnitude", "rst-erk", "scratch-erk", "rst-lth-mask"),
        *("rst-jump", "rst-square", "rst-cube", "shuffled", "reinit", "signs"),
    ],
    "extra_levels": [0.8],
    "rates": [0.05, 0.1],
    "draws": 3,
    "looks": 2,
    "others": [
        {
            "name": "boundary",
            "data": DIGITS.model_dump(),
            "model": {"name": "lenet_300_100"},
            "prunable": "hidden",
            "levels": [0.9],
            "finetune": {"batch": 50, "length": "3it"},
            "transform": {"lr": 0.02, "batch": 50, "length": "3it", "schedule": "constant"},
            "penalty": {"ceiling": 10.0, "ramp": 2, "every": 1},
            "arms": ["scratch", "rst", "lth"],
            "rates": [0.05, 0.1],
            "rate_arms": ["scratch", "rst", "lth"],
        }
    ],
    "runtime": RUNTIME,
}


def dlth(**changes: object) -> RstParams:
    """DLTH with all its arms, on a ResNet and an MLP."""
    return RstParams.model_validate(deepcopy(DLTH) | changes)


def dlth_cell(**changes: object) -> Cell:
    """The main case of DLTH as the argument of its units."""
    params = dlth(**changes)
    return params.cell(params.runtime, *Cell.model_fields)


# --- Plant 'n' Seek

PLANT_N_SEEK: dict[str, Any] = {
    "seeds": [0, 1],
    "train": 200,
    "test": 100,
    "fit": {"lr": 0.01, "batch": 50, "epochs": 1},
    "rounds": 2,
    "round_epochs": 1,
    "score_rounds": 3,
    "audits": [0, 1],
    "popup": {"batch": 50, "epochs": 2},
    "grids": [
        {
            "tasks": ["circle", "relu"],
            "widths": [24],
            "densities": ["gt", 0.3],
            "controls": True,
            "singleshot": ["random", "magnitude", "synflow_rounds"],
            "multishot": ["snip", "grasp_local"],
            "mothers": ["planted", "unplanted"],
        },
        {
            "tasks": ["relu"],
            "widths": [24],
            "densities": ["gt", 0.5],
            "mothers": ["planted", "unbiased"],
            "popup": ["plain", "annealed", "annealed_joint"],
            "heads": ["linear", "softmax"],
            "seeds": [0, 1, 2],
        },
    ],
    "runtime": RUNTIME,
}


def plant_n_seek(**changes: object) -> PlantParams:
    """Planted tickets in multilayer perceptrons, without the convolutional part."""
    return validate(PlantParams, deepcopy(PLANT_N_SEEK) | changes, "parameters")


CONV: dict[str, Any] = {
    "data": DIGITS.model_dump() | {"validation": 0, "pool": 4},
    "model": {"name": "conv2", "width": 4},
    "ticket_model": {"name": "conv2", "width": 2},
    "ticket_density": 0.3,
    "recipe": {
        "optimizer": "adam",
        "lr": 0.01,
        "batch": 40,
        "length": "2ep",
        "schedule": "constant",
    },
    "rounds": 2,
    "round_length": "1ep",
    "probe": 20,
    "densities": ["gt", 0.1],
    "singleshot": ["magnitude"],
    "multishot": ["synflow", "magnitude"],
    "popup": ["annealed"],
    "gains": ["none", "even"],
    "popup_densities": ["gt", 0.1, 0.5],
    "popup_recipe": {"lr": 0.1, "momentum": 0.9, "batch": 40, "length": "1ep"},
    "levels": 2,
}

BESIDE_CONV: dict[str, Any] = {
    "seeds": [0, 1],
    "train": 100,
    "test": 50,
    "fit": {"batch": 50, "epochs": 1},
    "rounds": 1,
    "round_epochs": 1,
    "score_rounds": 2,
    "audits": [0, 1],
    "popup": {"epochs": 1},
    "grids": [{"tasks": ["relu"], "widths": [8], "densities": [0.5], "singleshot": ["random"]}],
    "runtime": RUNTIME,
}


def conv(**changes: object) -> PlantParams:
    """The convolutional part, whose fields change, beside the smallest grid."""
    values = deepcopy(BESIDE_CONV) | {"conv": deepcopy(CONV) | changes}
    return validate(PlantParams, values, "parameters")


# --- the comparison

COMPARE: dict[str, Any] = {
    "seeds": [0, 1],
    "data": DIGITS.model_dump(),
    "rate": 0.6,
    "probe": 20,
    "synflow_rounds": 3,
    "long": [{"mask": "random", "budget": "imp"}, {"mask": "synflow", "budget": "rst"}],
    "swap_masks": ["imp", "imp-shuffled", "random"],
    "beds": [
        {
            "name": "convnet",
            "model": {"name": "conv3", "width": 4, "conv_bias": False},
            "levels": [0.7, 0.85],
            "recipe": {"batch": 50, "length": "1ep"},
            "transform": {"lr": 0.02, "batch": 50, "length": "3it", "schedule": "constant"},
            "penalty": {"ceiling": 10.0, "ramp": 2, "every": 1},
        }
    ],
    "runtime": RUNTIME,
}


def compare(**changes: object) -> CompareParams:
    """The comparison on one bed."""
    return CompareParams.model_validate(deepcopy(COMPARE) | changes)


def compare_bed(**changes: object) -> CompareParams:
    """As `compare`, with changes of the bed."""
    return compare(beds=[deepcopy(COMPARE["beds"][0]) | changes])


def compare_setting(**changes: object) -> BedSetting:
    """A bed of the comparison as the argument of its units."""
    params = compare_bed(**changes)
    return params.setting(params.beds[0], *BedSetting.model_fields)


# --- geometry


def geometry_values() -> dict[str, Any]:
    """The parameters in the form of params.yaml."""
    values: dict[str, Any] = read_yaml(ROOT / "tests/papers/geometry/tiny.yaml")
    return values


def geometry(**changes: object) -> GeometryParams:
    """Lines, rewinding, transplants and reliability on one bed."""
    return GeometryParams.model_validate(geometry_values() | changes)


def geometry_setting(**changes: object) -> GeometrySetting:
    """A bed of the geometry study as the argument of its units."""
    params = geometry(**changes)
    return params.setting(params.beds[0], *GeometrySetting.model_fields)


STUDIES: dict[str, tuple[str, Callable[[], Any]]] = {
    "colt": ("colt", colt),
    "prac": ("prac", prac),
    "dlth": ("dlth", dlth),
    "plant_n_seek": ("plant_n_seek", plant_n_seek),
    "conv": ("plant_n_seek", conv),
    "compare": ("compare", compare),
}
"""The paper and the tiny parameters of each study."""
