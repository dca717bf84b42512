"""Every statement of exactness in the notebooks, and a fault for each that ends the notebook's run.

A fault replaces one variable just before the cell that makes the statement: mostly two weights, two
entries of a mask or two numbers of a table change places. `planted` is a notebook in which each
checking cell runs once under each of its faults, and then as it is.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell

from ticketlab.files import read_yaml
from ticketlab.pipeline.registry import PAPERS
from ticketlab.spec import ROOT

CHECK = "exactly("
TRUTH = re.compile(r"\b(True|False)\b")

TOOLS = '''
from dataclasses import replace
from types import SimpleNamespace

import torch

from ticketlab.pruning.masks import Mask
from ticketlab.study.results import Result
from ticketlab.tickets.ticket import state_digest


def traded(tensor, one, two):
    """The tensor with two of its entries (flat places) exchanged."""
    flat = tensor.clone().flatten()
    flat[one], flat[two] = tensor.flatten()[two], tensor.flatten()[one]
    return flat.view(tensor.shape)


def exchanged(tensor):
    """The tensor with its first entry and the first other one exchanged."""
    flat = tensor.flatten()
    return traded(tensor, 0, int((flat != flat[0]).nonzero()[0]))


def swap_kept(state, mask):
    """Two kept weights of one layer exchanged."""
    for name, keep in mask.items():
        places = keep.flatten().nonzero().flatten().tolist()
        values = state[name].flatten()
        for other in places[1:]:
            if values[other] != values[places[0]]:
                return state | {name: traded(state[name], places[0], other)}


def swap_gone(state, mask):
    """A kept weight and a removed one exchanged."""
    for name, keep in mask.items():
        kept = (keep.flatten() & (state[name].flatten() != 0)).nonzero().flatten()
        gone = (~keep.flatten()).nonzero().flatten()
        if len(kept) and len(gone):
            return state | {name: traded(state[name], int(kept[0]), int(gone[0]))}


def swap_other(state, mask):
    """Two entries of something that no mask prunes exchanged."""
    for name in reversed([name for name in state if name not in mask]):
        if len(state[name].flatten().unique()) > 1:
            return state | {name: exchanged(state[name])}


def swap_mask(mask):
    """A kept and a removed entry of one layer exchanged."""
    for name, keep in mask.items():
        if keep.any() and not keep.all():
            return Mask({**mask, name: exchanged(keep)})


def drop(mask):
    """The mask without one of its weights."""
    for name, keep in mask.items():
        if keep.any():
            rest = keep.clone().flatten()
            rest[int(rest.nonzero()[0])] = False
            return Mask({**mask, name: rest.view(keep.shape)})


def with_ticket(results, change, units=""):
    """The results with the last ticket of the first fitting unit changed."""
    for unit, result in results.items():
        for name in sorted(result.tickets, reverse=True):
            if unit.startswith(units) and (changed := change(result.tickets[name])) is not None:
                tickets = {**result.tickets, name: changed}
                return results | {unit: Result(result.record, tickets)}


def not_zero(ticket):
    """The ticket with a kept and a removed weight exchanged."""
    if ticket.weights is not None and ticket.mask.sparsity > 0:
        return replace(ticket, weights=swap_gone(ticket.weights, ticket.mask))


def other_start(ticket):
    """The ticket from a start with two weights exchanged."""
    if ticket.weights is not None:
        weights = swap_kept(ticket.weights, ticket.mask)
        start = {"init_sha256": state_digest(weights)}
        return replace(ticket, weights=weights, metadata={**ticket.metadata, **start})


def other_data(ticket):
    """The ticket as if found on another data set."""
    return replace(ticket, metadata={**ticket.metadata, "data_sha256": "other"})


def other_pattern(ticket):
    """The ticket as if its net had been trained to the zeros of another mask."""
    if (other := swap_mask(ticket.mask)) is None:  # it keeps everything
        return None
    facts = {**ticket.metadata, "trained_mask_sha256": other.digest()}
    return replace(ticket, metadata=facts)


def out_of_turn(results, units):
    """The last ticket of a search as if its net had been trained when the first one's was."""
    unit = next(unit for unit in results if unit.startswith(units))
    first = results[unit].tickets[min(results[unit].tickets)].metadata["trained_mask_sha256"]

    def change(ticket):
        return replace(ticket, metadata={**ticket.metadata, "trained_mask_sha256": first})

    return with_ticket(results, change, units)


def inverted(ticket):
    """The ticket with the weights that it lacks, which the rounds before it removed, too."""
    return replace(ticket, mask=Mask({name: ~keep for name, keep in ticket.mask.items()}))


def with_record(results, units, **changes):
    """The results with the record of the first fitting unit changed."""
    unit = next(unit for unit in results if unit.startswith(units))
    found = results[unit]
    return results | {unit: Result(found.record | changes, found.tickets)}


def with_row(results, **changes):
    """The results with the first row of the first unit that has rows changed."""
    unit = next(unit for unit, found in results.items() if found.record.get("rows"))
    rows = results[unit].record["rows"]
    return with_record(results, unit, rows=[rows[0] | changes, *rows[1:]])


def exchange(frame, column, one, two=None):
    """The table with two values of a column exchanged: of the first row of `one`, and of `two`."""
    frame, two = frame.copy(), one if two is None else two
    first = frame.index[one][0]
    second = next(i for i in frame.index[two] if frame[column][i] != frame[column][first])
    values = frame[column].copy()
    values[first], values[second] = frame[column][second], frame[column][first]
    return frame.assign(**{column: values})
'''


@dataclass(frozen=True)
class Fault:
    """A variable of the notebook and what it is replaced by, as an expression of the notebook."""

    variable: str
    by: str


STATEMENTS: dict[str, dict[str, Fault]] = {
    "colt": {
        "no image is dealt twice": Fault(
            "parts", "[torch.cat([parts[0][1:2], parts[0][1:]]), *parts[1:]]"
        ),
        "every training image is dealt to a copy": Fault("parts", "[parts[0][1:], *parts[1:]]"),
        "no class is dealt to two copies": Fault(
            "parts",
            "[torch.cat([parts[1][:1], parts[0][1:]]), torch.cat([parts[0][:1], parts[1][1:]])]",
        ),
        "every copy starts from the same weights, head included": Fault(
            "starts", "[starts[0], swap_other(starts[1], dense)]"
        ),
        "each copy prunes `rate` in whole weights": Fault("own", "[drop(own[0]), *own[1:]]"),
        "a weight survives if it survives in every copy": Fault("common", "swap_mask(common)"),
        "two copies remove u = 2r / (1 + J)": Fault("common", "drop(common)"),
        "removed weights are zero after rewinding": Fault("rewound", "swap_gone(rewound, common)"),
        "survivors equal the rewinding point": Fault("rewound", "swap_kept(rewound, common)"),
        "all else equals the rewinding point": Fault("rewound", "swap_other(rewound, common)"),
        "all tickets were found on one data set": Fault(
            "first", "with_ticket(first, other_data, 'search/')"
        ),
        "removed weights of every stored ticket are zero": Fault(
            "results", "with_ticket(results, not_zero)"
        ),
        "the masks of every search are nested": Fault(
            "first", "with_ticket(first, inverted, 'search/colt')"
        ),
        "all arms of a seed but reinit start from the same weights": Fault(
            "first", "with_ticket(first, other_start, 'score/random')"
        ),
        "two copies remove u = 2r / (1 + J) in all rounds": Fault(
            "rounds", "exchange(rounds, 'alive', rounds.arm == p.main[0].name)"
        ),
        "every ticket names zeros that a net of its unit was trained to": Fault(
            "results", "with_ticket(results, other_pattern)"
        ),
        "every search trains under its masks in turn": Fault(
            "first", "out_of_turn(first, 'search/colt')"
        ),
        "retrained tickets were trained under their own masks": Fault(
            "made", "exchange(made, 'mask_sha256', made.unit.str.startswith('score/random'))"
        ),
        "IMP at COLT's pace has as many weights left as COLT after every round": Fault(
            "rounds", "exchange(rounds, 'alive', rounds.arm == 'imp-matched')"
        ),
        "a round of COLT sees as many images as a round of IMP": Fault(
            "rounds",
            "exchange(rounds, 'search_images', (rounds.arm == 'imp') & (rounds['round'] > 0))",
        ),
        "re-initialised tickets have the masks of their arm": Fault(
            "here", "exchange(here, 'mask_sha256', here.arm.str.endswith('-reinit'))"
        ),
        "shuffled tickets keep their arm's density in every layer": Fault(
            "here", "exchange(here, 'layers', here.arm.str.endswith('-shuffled'))"
        ),
        "all arms of a seed but reinit start from the same weights at the later point": Fault(
            "later", "with_ticket(later, other_start, 'score/random')"
        ),
        "the later point has other weights than the first": Fault(
            "later", "{name: r for name, r in first.items() if name.startswith('search/')}"
        ),
        "moved tickets have as many weights left as at their source": Fault(
            "moved", "exchange(moved, 'alive', moved.arm != '')"
        ),
    },
    "prac": {
        "CET by hand is the search's own": Fault("cet", "exchanged(cet)"),
        "the dense round has no CEP": Fault(
            "first", "replace(first, found=replace(first.found, cep=everything[:1]))"
        ),
        "a round prunes `rate` in whole weights": Fault("pruned", "drop(pruned)"),
        "CEP by hand is the search's own": Fault("cep", "exchanged(cep)"),
        "the set is the union of CET and CEP": Fault(
            "found",
            "SimpleNamespace(cet=found.cet, cep=found.cep, never=found.never, "
            "union=exchanged(found.union))",
        ),
        "CET lies in the set that was trained on": Fault("cet", "cet[cet != found.cet[0]]"),
        "samples never learned are in CET": Fault(
            "found", "replace(found, never=everything[~torch.isin(everything, found.cet)])"
        ),
        "both dense nets have the same training images": Fault(
            "other", "units.Searcher(hand.setting(), p.seeds[0] + 1000, 'prac', plans(p)['prac'])"
        ),
        "all tickets were found on one data set": Fault(
            "results", "with_ticket(results, other_data)"
        ),
        "removed weights of every stored ticket are zero": Fault(
            "results", "with_ticket(results, not_zero)"
        ),
        "the masks of every search are nested": Fault(
            "results", "with_ticket(results, inverted, 'search/main/prac')"
        ),
        "all arms of a seed but reinit rewind to the same weights": Fault(
            "results", "with_ticket(results, other_start, 'score/main/random')"
        ),
        "every ticket names zeros that a net of its unit was trained to": Fault(
            "results", "with_ticket(results, other_pattern)"
        ),
        "every search trains under its masks in turn": Fault(
            "results", "out_of_turn(results, 'search/main/prac')"
        ),
        "retrained tickets were trained under their own masks": Fault(
            "made", "exchange(made, 'mask_sha256', made.unit.str.startswith('score/main/reinit'))"
        ),
        "all arms of a net have as many weights left after a round": Fault(
            "made", "exchange(made, 'alive', made.arm == 'prac')"
        ),
        "re-initialised tickets have PrAC's masks": Fault(
            "made", "exchange(made, 'mask_sha256', made.unit.str.startswith('score/main/reinit'))"
        ),
        "shuffled masks keep the density of every layer": Fault(
            "made", "exchange(made, 'layers', made.arm == 'prac-shuffled')"
        ),
        "CET lies in the set of its round in all searches": Fault(
            "turns", "turns.assign(cet_outside=turns.cet_outside + 1)"
        ),
        "other samples are as many as PrAC's in every round": Fault(
            "turns", "exchange(turns, 'samples', turns.arm == 'random')"
        ),
        "arms that follow PrAC take its iterations in every round": Fault(
            "turns", "exchange(turns, 'iterations', turns.arm == 'short-imp')"
        ),
        "a carried sequence starts from all data": Fault(
            "turns", "exchange(turns, 'samples', turns.arm == 'transfer-sequence')"
        ),
        "a carried last set is trained on in all rounds": Fault(
            "turns",
            "exchange(turns, 'samples', turns.arm == 'transfer-final', turns.arm == 'prac')",
        ),
        "exported sets read back as the search found them": Fault(
            "results",
            "results | {f'search/main/prac/seed-{p.seeds[0]}':"
            " results[f'search/main/prac/seed-{p.seeds[1]}']}",
        ),
    },
    "dlth": {
        "first and output layer stay dense": Fault(
            "mask", "Mask({**mask, next(iter(net.names)): torch.ones(1, dtype=torch.bool)})"
        ),
        "the mask removes ceil(s n) weights of every layer": Fault("mask", "drop(mask)"),
        "the random mask does not depend on the weights": Fault("mask", "swap_mask(mask)"),
        "removed weights are zero after the removal": Fault("ticket", "swap_gone(ticket, mask)"),
        "the removal leaves kept weights untouched": Fault("ticket", "swap_kept(ticket, mask)"),
        "the removal leaves all else untouched": Fault("ticket", "swap_other(ticket, mask)"),
        "removed weights are still zero after finetuning": Fault(
            "tuned", "tuned | {'RST': swap_gone(tuned['RST'], mask)}"
        ),
        "every finetuned net is zero where its mask removes": Fault(
            "results", "with_row(results, intact=False)"
        ),
        "every mask but ERK's removes ceil(s n) of a layer": Fault(
            "results", "with_row(results, exact=False)"
        ),
        "all tickets of a case were found on one data set": Fault(
            "results", "with_ticket(results, other_data)"
        ),
        "removed weights of every stored ticket are zero": Fault(
            "results", "with_ticket(results, not_zero)"
        ),
        "all arms of a case and seed start from the same weights": Fault(
            "results", "with_ticket(results, other_start)"
        ),
        "every ticket and every row names zeros that a net of its unit was trained to": Fault(
            "results", "with_ticket(results, other_pattern)"
        ),
        "arms with a random mask share it": Fault(
            "rows", "exchange(rows, 'mask_sha256', rows.arm == 'scratch')"
        ),
        "the controls of RST's budget see as many images, to a batch": Fault(
            "rows", "exchange(rows, 'images', rows.arm == 'warm-up', rows.arm == 'scratch')"
        ),
        "RST under LTH's mask has LTH's mask": Fault(
            "rows", "exchange(rows, 'mask_sha256', rows.arm == 'rst-lth-mask')"
        ),
        "damage leaves biases and batch-norm state as they were": Fault(
            "hurt", "hurt | {'signs': (swap_other(hurt['signs'][0], mask), mask)}"
        ),
        "new draws and signs keep the ticket's mask": Fault(
            "hurt", "hurt | {'signs': (hurt['signs'][0], swap_mask(mask))}"
        ),
        "shuffling keeps the values of every layer": Fault(
            "hurt", "hurt | {'shuffled': (hurt['shuffled'][0], swap_mask(hurt['shuffled'][1]))}"
        ),
        "a seed's first draw of both kinds is one net": Fault(
            "drawn", "exchange(drawn, 'last_accuracy', drawn.varied == 'mask')"
        ),
    },
    "compare": {
        "every criterion prunes the same layers": Fault(
            "found", "found | {'snip': Mask(dict(reversed(list(found['snip'].items()))))}"
        ),
        "every criterion keeps the same number of weights": Fault(
            "found", "found | {'snip': drop(found['snip'])}"
        ),
        "the highest worst ranks are COLT's overlap": Fault("overlapped", "swap_mask(overlapped)"),
        "all arms have exactly the same number of weights left": Fault(
            "rows", "exchange(rows, 'alive', rows.arm == 'imp')"
        ),
        "removed weights of every stored ticket are zero": Fault(
            "results", "with_ticket(results, not_zero)"
        ),
        "all methods of a net and seed but RST start from the same weights": Fault(
            "results", "with_ticket(results, other_start, 'convnet/prac')"
        ),
        "every ticket names zeros that a net of its unit was trained to": Fault(
            "results", "with_ticket(results, other_pattern)"
        ),
        "all tickets were trained under their own masks": Fault(
            "made", "exchange(made, 'mask_sha256', made.arm == 'imp')"
        ),
        "all tickets of a net and seed were found on one split of the data": Fault(
            "made", "made.assign(data_sha256=made.data_sha256.where(made.arm != 'rst', 'other'))"
        ),
        "RST has the random mask": Fault(
            "made", "exchange(made, 'mask_sha256', made.arm == 'rst')"
        ),
        "IMP at COLT's pace has as many weights left as COLT after every round": Fault(
            "results", "with_record(results, 'convnet/imp-matched/', left=[3, 2, 1])"
        ),
        "all final trainings of a net see as many images": Fault(
            "rows", "exchange(rows, 'images', rows.arm == 'imp')"
        ),
        "a long control sees as many images as its method, to a batch": Fault(
            "rows", "exchange(rows, 'images', rows.arm.str.contains(', long as '))"
        ),
        "IMP's second run has found other masks from the same weights and split": Fault(
            "arms", "arms | {'imp-again': arms['imp'].assign(arm='imp-again')}"
        ),
    },
    "plant_n_seek": {
        "no entry of a hand-made ticket is rounding": Fault(
            "circle",
            "SimpleNamespace(planted=replace(circle.planted, target="
            "circle.planted.target | {'weight1': circle.planted.target['weight1'] * 1e-15}))",
        ),
        "a planted ticket has the entries of its target, no more": Fault(
            "circle",
            "SimpleNamespace(planted=replace(circle.planted, mask=drop(circle.planted.mask)))",
        ),
        "the package plants at the same neuron": Fault("modes", "modes | {'paper': modes['norm']}"),
        "the package plants the same entries": Fault(
            "modes",
            "modes | {'paper': replace(modes['paper'], weights=modes['paper'].weights | "
            "{'bias1': traded(modes['paper'].weights['bias1'], place, place - 1)})}",
        ),
        "planted tickets compute their target to rounding, in every mode": Fault(
            "error", "error | {'norm': 1.0}"
        ),
        "planting leaves what is not between planted neurons as it was": Fault(
            "done",
            "replace(done, mother=done.mother | {'weight2': done.mother['weight2'].flip(0)})",
        ),
        "SynFlow keeps exactly the ticket's share": Fault(
            "searched", "searched | {1: drop(searched[1])}"
        ),
        "all controls of the planted ticket keep its number of entries": Fault(
            "scores", "exchange(scores, 'kept', scores.method == 'oracle', scores.method == 'snip')"
        ),
        "every search keeps exactly the share that was asked for": Fault(
            "scores", "exchange(scores, 'kept', scores.method == 'snip')"
        ),
        "the planted ticket of a cell and seed is one in all units": Fault(
            "scores", "exchange(scores, 'ticket', scores.method == 'snip')"
        ),
        "every ticket names zeros that a net of its unit was trained to": Fault(
            "results", "with_ticket(results, other_pattern)"
        ),
        "the unbiased mother's output bias is zero": Fault(
            "circle", "SimpleNamespace(start=lambda mother, real=circle: real.start('unplanted'))"
        ),
        "the unbiased mother is the unplanted one in all else": Fault(
            "circle",
            "SimpleNamespace(start=lambda mother, real=circle: real.start(mother) | "
            "{'weight1': exchanged(real.start(mother)['weight1']) "
            "if mother == 'unbiased' else real.start(mother)['weight1']})",
        ),
        "planting leaves ReLU's output bias zero": Fault(
            "relu", "SimpleNamespace(start=lambda mother, real=relu: real.start('unplanted'))"
        ),
        "behind a softmax of one output no mask ever moves": Fault(
            "learning",
            "exchange(learning, 'score', (learning.regime == 'popup_softmax') "
            "& (learning.method == 'plain') & (learning.task == 'relu'))",
        ),
        "the planted chain computes its ticket to rounding": Fault("ours", "exchanged(ours)"),
        "trained convolutional tickets are planted to rounding": Fault(
            "results", "with_record(results, 'conv/plant/', error=1.0)"
        ),
        "even signals change a net by one positive factor": Fault("names", "names[::-1]"),
    },
}
"""All statements of exactness, by notebook in their order; each with a fault that it catches."""

EARLY = {
    "colt": "survivors equal the rewinding point",
    "prac": "CET by hand is the search's own",
    "dlth": "the removal leaves kept weights untouched",
    "compare": "the highest worst ranks are COLT's overlap",
    "plant_n_seek": "the package plants the same entries",
}
"""A statement of each notebook that is made before its study is trained."""

for path in sorted(Path(__file__).parent.glob("papers/*/statements.yaml")):
    STATEMENTS[path.parent.name] = {said: Fault(*how) for said, how in read_yaml(path).items()}
    EARLY[path.parent.name] = next(iter(STATEMENTS[path.parent.name]))
for paper in PAPERS:  # a further notebook may state nothing
    STATEMENTS.setdefault(paper, {})


def read(paper: str) -> Any:
    """A stored notebook."""
    return nbformat.read(ROOT / "notebooks" / f"{paper}.ipynb", as_version=4)


def statements(source: str) -> list[str]:
    """What a cell states to be exact, in order; each in words, for this list to be found by."""
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "exactly"
    ]
    said = [call.args[0] for call in sorted(calls, key=lambda call: call.lineno)]
    return [ast.literal_eval(words) for words in said]


def planted(paper: str) -> Any:
    """The notebook in which each checking cell also runs under each of its faults, and fails."""
    book, cells = read(paper), []
    for cell in book.cells:
        if cell.cell_type == "code" and CHECK in cell.source:
            for said in statements(cell.source):
                cells += _under(STATEMENTS[paper][said], cell.source, said)
        cells.append(cell)
    book.cells = [new_code_cell(TOOLS), *cells]
    return book


def _under(fault: Fault, source: str, said: str) -> list[Any]:
    """Plant a fault, run a cell that has to fail, and take the fault back."""
    tags = {"tags": ["raises-exception"], "statement": said}
    return [
        new_code_cell(f"real = {fault.variable}\n{fault.variable} = {fault.by}"),
        new_code_cell(source, metadata=tags),
        new_code_cell(f"{fault.variable} = real"),
    ]


def ending(paper: str) -> Any:
    """The notebook with one early fault, up to the cell that catches it and one that never runs."""
    book, said = read(paper), EARLY[paper]
    place = next(
        i
        for i, c in enumerate(book.cells)
        if c.cell_type == "code" and CHECK in c.source and said in statements(c.source)
    )
    fault = STATEMENTS[paper][said]
    spoil = new_code_cell(f"{TOOLS}\n{fault.variable} = {fault.by}")
    last = new_code_cell("open('went-on', 'w')")
    book.cells = [*book.cells[:place], spoil, book.cells[place], last]
    return book


def refusal(cell: Any) -> str | None:
    """What an executed cell failed with; None if it did not."""
    failed = [out.evalue for out in cell.outputs if out.output_type == "error"]
    return failed[0] if failed else None


def bare_truths(cell: Any) -> list[str]:
    """Lines of an executed cell's plain results that show a True or a False."""
    texts = [
        out.get("text") or out.get("data", {}).get("text/plain", "")
        for out in cell.outputs
        if "text/markdown" not in out.get("data", {})
    ]
    return [line for text in texts for line in text.splitlines() if TRUTH.search(line)]
