"""A study's parameters in words: nets, images and schedules, for the fidelity cards."""

from collections.abc import Mapping

from IPython.display import Markdown

from ticketlab import models, plugins
from ticketlab.data.sets import DataSet, DataSpec
from ticketlab.training.recipe import Recipe, Step


def card(study: str, facts: Mapping[str, str]) -> Markdown:
    """Return the facts as a table under the study's name."""
    rows = [f"| {name} | {said} |" for name, said in facts.items()]
    return Markdown("\n".join([f"| in this study | `{study}` |", "|---|---|", *rows]))


def left_out(what: str, key: str, study: str = "desk_long") -> Markdown:
    """Say what the study leaves out, which parameter decides that, and which study runs it."""
    return Markdown(f"*This study leaves out {what} (`{key}`); `{study}` runs this.*")


def net(spec: models.ModelSpec, rule: str, data: DataSet) -> str:
    """Describe a net: name, width next to the published one's, weights prunable under `rule`."""
    own, full = _weights(spec, rule, data), models.architecture(spec.name).options.get("width")
    said = f"{spec.name}: {own:,} weights can be pruned"
    if plugins.is_plugin(spec.name) or full is None or spec.width in (None, full):
        return said
    share = own / _weights(spec.model_copy(update={"width": None}), rule, data)
    return (
        f"{said}; width {spec.width} where the published net has {full}, {share:.1%} of its weights"
    )


def _weights(spec: models.ModelSpec, rule: str, data: DataSet) -> int:
    """Return the number of weights that are prunable under `rule`."""
    model = models.build(spec, data.shape, data.classes, 0)
    named = dict(model.named_parameters())
    return sum(named[name].numel() for name in models.prunable(model, rule))


def images(spec: DataSpec, data: DataSet) -> str:
    """Describe a data set: images per split, their shape, the number of classes."""
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    counts = ", ".join(f"{len(part):,} for {name}" for name, part in parts.items())
    channels, height, width = data.shape
    shape = f"{height} x {width} pixels, {channels} {'channel' if channels == 1 else 'channels'}"
    augment = spec.augment
    changed = [
        f"crop {augment.crop}" if augment.crop else "",
        "flip" if augment.flip else "",
        f"rotate {augment.rotate:g}" if augment.rotate else "",
    ]
    augmented = ", ".join(filter(None, changed)) or "none"
    return f"{spec.name}: {counts}; {shape}, {data.classes} classes; augmentation: {augmented}"


def schedule(recipe: Recipe, count: int) -> str:
    """Describe a recipe on `count` training images: epochs, iterations, optimiser."""
    per_epoch, total = recipe.iterations(count)
    length = f"{total / per_epoch:.3g} epochs, {total:,} iterations of {recipe.batch} images"
    return f"{length}; {recipe.optimizer}, learning rate {recipe.lr:g}"


def rewinding(step: Step) -> str:
    """Describe the point to which tickets are rewound."""
    if step.value == 0:
        return "initial weights"
    return f"the weights after {in_words(step)} of dense training"


def in_words(step: Step) -> str:
    """Spell a step out: '1 epoch', '500 iterations' or '40 %'."""
    unit = {"ep": "epoch", "it": "iteration", "%": "%"}[step.unit]
    return f"{step.value:g} {unit}{'s' if step.unit != '%' and step.value != 1 else ''}"


def seeds(numbers: tuple[int, ...]) -> str:
    """List the seeds and their number."""
    return f"{len(numbers)}: {', '.join(map(str, numbers))}"
