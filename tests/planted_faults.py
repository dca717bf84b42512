"""A campaign of planted faults: which test sees each of them? Run by hand, not by pytest.

    python tests/planted_faults.py [--paper colt] [--state FILE] [--table FILE]

Each fault is one exact replacement in a source file, written down before any of them was run. The
script applies one at a time in a throw-away copy of the committed project, runs the paper's part of
`test_laws.py`, and the paper's other fast tests if the laws let it through. A text that is not in
its file exactly once ends the campaign: such a fault would count as caught by nothing at all.
"""

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]

KINDS = {
    "split": "images of the wrong split or set",
    "order": "order by arm",
    "mask": "another mask",
    "schedule": "off-by-one schedule",
    "price": "wrong price",
    "weights": "weights kept where only the mask should move",
    "start": "wrong start state",
    "test": "selection on test",
    "answer": "another answer than the verdicts give",
}

PARTS = {
    "colt": ("[colt", "papers/colt tickets/test_imp.py"),
    "prac": ("[prac", "papers/prac"),
    "dlth": ("[dlth", "papers/dlth"),
    "compare": ("[compare", "papers/compare"),
    "plant_n_seek": ("[plant or [conv", "papers/plant_n_seek"),
    "geometry": ("", "papers/geometry"),
    "judging": ("", "judging"),
}
"""For each paper, and for judging: which laws are its own ("" for none), and its other tests."""


@dataclass(frozen=True)
class Fault:
    """One replacement: what it is, and the number of the law that should see it; 0 for none."""

    paper: str
    kind: str
    law: int
    what: str
    file: str
    old: str
    new: str

    @property
    def name(self) -> str:
        """Its key in the state file."""
        return f"{self.paper}: {self.what}"


COLT_ARMS, COLT_STUDY = "ticketlab/papers/colt/units.py", "ticketlab/papers/colt/study.py"
PRAC_ARMS, PRAC_STUDY = "ticketlab/papers/prac/units.py", "ticketlab/papers/prac/study.py"
PRAC_SCORES, PRAC_BENCH = "ticketlab/papers/prac/retraining.py", "ticketlab/papers/prac/bench.py"
RST_ARMS, RST_PARAMS = "ticketlab/papers/dlth/units.py", "ticketlab/papers/dlth/params.py"
RST_NUMBERS = "ticketlab/papers/dlth/metrics.py"
COMPARE_WAYS, COMPARE_ARMS = (
    "ticketlab/papers/compare/algorithm.py",
    "ticketlab/papers/compare/units.py",
)
PLANT_ARMS, CONV_ARMS = (
    "ticketlab/papers/plant_n_seek/units.py",
    "ticketlab/papers/plant_n_seek/conv/units.py",
)

BENCH, COST = "ticketlab/study/bench.py", "ticketlab/study/cost.py"
RETRAIN, COMPARE_STUDY = "ticketlab/study/retrain.py", "ticketlab/papers/compare/study.py"
PLANT_REPORT = "ticketlab/papers/plant_n_seek/report.py"
DLTH = "ticketlab/papers/dlth/algorithm.py"
RECIPE = "ticketlab/training/recipe.py"
JUDGE_ARMS, JUDGE_STUDY = "ticketlab/judging/units.py", "ticketlab/judging/study.py"
JUDGE_ANSWER = "ticketlab/judging/answer.py"
POPUP = "ticketlab/papers/plant_n_seek/algorithm/edge_popup.py"
OWN_LINES, STORED = "ticketlab/papers/geometry/own.py", "ticketlab/papers/geometry/stored.py"
LINE_NUMBERS = "ticketlab/papers/geometry/own_lines.py"

FAULTS = (
    # ------------------------------------------------ COLT
    Fault("colt", "split", 2, "copies are selected on training images", COLT_ARMS,
          "held_out = algorithm.segments(data.validation, *how)",
          "held_out = algorithm.segments(data.train, *how)"),
    Fault("colt", "split", 4, "all copies train on the first segment", COLT_ARMS,
          "            parts[copy],\n", "            parts[0],\n"),
    Fault("colt", "order", 1, "IMP has an order of its own", COLT_ARMS,
          "        own = Account(bench)\n", "        own = Account(Bench(setting, seed + 100))\n"),
    Fault("colt", "order", 1, "retrained tickets have an order by arm", COLT_ARMS,
          "done = train_and_score(Account(bench), setting, net, theta, mask)",
          "done = train_and_score(Account(Bench(setting, seed + len(arm))), setting, net, "
          "theta, mask)"),
    Fault("colt", "order", 1, "tickets have an order by their size", RETRAIN,
          "recipe or account.bench.setting.recipe,\n",
          "recipe or account.bench.setting.recipe,\n"
          '        stage=f"train-{mask.alive if mask else 0}",\n'),
    Fault("colt", "mask", 4, "variants are scored with the main variant's tickets", COLT_STUDY,
          'found = results[f"{point.prefix}search/{source}/seed-{seed}"]',
          'found = results[f"{point.prefix}search/{params.main[0].name}/seed-{seed}"]'),
    Fault("colt", "mask", 4, "late tickets are those of the first point", COLT_STUDY,
          'found = results[f"{point.prefix}search/{source}/seed-{seed}"]',
          'found = results[f"search/{source}/seed-{seed}"]'),
    Fault("colt", "mask", 4, "the largest weights are those of the ticket", COLT_ARMS,
          'keep_top(magnitude(gpu.moved(theta, "cpu"), everything), mask.alive)', "mask"),
    Fault("colt", "mask", 4, "random masks are shuffled ones", COLT_ARMS,
          "keep_top(uniform(everything, random), mask.alive)", "shuffle_layerwise(mask, random)"),
    Fault("colt", "mask", 4, "layer by layer is all layers together", COLT_ARMS,
          "        layerwise=variant.layerwise,\n", ""),
    Fault("colt", "mask", 4, "shuffled tickets of IMP are COLT's when moved", COLT_STUDY,
          "shuffle_each(chosen, seed,", "shuffle_each(found, seed,"),
    Fault("colt", "schedule", 4, "IMP in half the rounds takes all of them",
          "ticketlab/papers/colt/algorithm.py", "return schedule[::-2][::-1]", "return schedule"),
    Fault("colt", "mask", 4, "IMP's transfer carries COLT's masks", COLT_STUDY,
          '"imp": chosen_tickets(ladder, levels)', '"imp": found'),
    Fault("colt", "schedule", 4, "matched IMP leaves out COLT's first round", COLT_STUDY,
          'schedule = [turn["alive"] for turn in found.record["rounds"]]',
          'schedule = [turn["alive"] for turn in found.record["rounds"]][1:]'),
    Fault("colt", "schedule", 4, "matched IMP prunes one round late", "ticketlab/tickets/imp.py",
          "lambda index, _: alive[index]", "lambda index, now: ([now, *alive])[index]"),
    Fault("colt", "price", 3, "a training step costs two passes", COST,
          "STEP = 3.0", "STEP = 2.0"),
    Fault("colt", "price", 3, "IMP's levels cost one training more", COLT_ARMS,
          '        rounds.append(account.spent.row("search_") | done.scores)\n'
          "        outcomes.append(done.outcome)\n"
          "        account.trained += own.trained\n",
          "        account.trained += own.trained\n"
          '        rounds.append(account.spent.row("search_") | done.scores)\n'
          "        outcomes.append(done.outcome)\n"),
    Fault("colt", "price", 3, "masks make nothing cheaper", COST,
          "models.flops(model, shape, mask.densities())", "models.flops(model, shape)"),
    Fault("colt", "weights", 4, "the mask alone is transferred with the old weights", COLT_ARMS,
          'bench.model("init" if with_weights else "transfer-init")', 'bench.model("init")'),
    Fault("colt", "weights", 4, "re-initialised tickets keep their weights", COLT_ARMS,
          'bench.net("reinit" if control == "reinit" else "init")', "bench.net()"),
    Fault("colt", "start", 4, "copies go on from the weights of the copy before", COLT_ARMS,
          "net.rewind(start, mask)", "net.rewind(net.state(), mask)"),
    Fault("colt", "start", 4, "IMP goes on from its trained weights", COLT_ARMS,
          "train_and_score(own, setting, net, theta, mask)",
          "train_and_score(own, setting, net, net.state(), mask)"),
    Fault("colt", "start", 4, "the late point is the first one", COLT_STUDY,
          "ColtSetting.of(params, *own, rewind=point.rewind)", "ColtSetting.of(params, *own)"),
    Fault("colt", "start", 4, "late tickets are rewound to the initial weights", BENCH,
          "return _grafted(start, self.later(self.setting.rewind, full))", "return start"),
    Fault("colt", "test", 2, "nets are selected on test images", RETRAIN,
          "KeepBest(data.validation, data) if len", "KeepBest(data.test, data) if len"),
    Fault("colt", "test", 2, "copies are selected on test images", COLT_ARMS,
          "[KeepBest(held_out[copy], data)]", "[KeepBest(data.test, data)]"),
    # ------------------------------------------------ PrAC
    Fault("prac", "split", 2, "tickets are retrained on validation images", RETRAIN,
          "        net,\n        data.train,\n        recipe or",
          "        net,\n        data.validation,\n        recipe or"),
    Fault("prac", "split", 4, "the best epoch is that on training images", PRAC_ARMS,
          "best = [KeepBest(data.validation, data)]", "best = [KeepBest(data.train, data)]"),
    Fault("prac", "order", 1, "searches have an order by arm", PRAC_ARMS,
          "recipe, mask=mask, observers=observers, until=until)",
          "recipe, stage=self.arm, mask=mask, observers=observers, until=until)"),
    Fault("prac", "order", 1, "re-initialised tickets have an order of their own", PRAC_SCORES,
          "retrain_many(bench, [Start(theta",
          "retrain_many(PracBench(setting, seed + 100 * reinit), [Start(theta"),
    Fault("prac", "mask", 4, "followers start from PrAC's second mask", PRAC_STUDY,
          'more["start"] = leader.tickets["round-01"].mask',
          'more["start"] = leader.tickets["round-02"].mask'),
    Fault("prac", "mask", 4, "the re-initialised tickets are IMP's", PRAC_STUDY,
          'setting, seed, masks["prac"], None)', 'setting, seed, masks["imp"], None)'),
    Fault("prac", "mask", 4, "shuffled masks are not shuffled", PRAC_STUDY,
          'shuffle_each(chosen, seed, "shuffle", arm)', "dict(chosen)"),
    Fault("prac", "order", 4, "IMP again has IMP's data order", PRAC_BENCH,
          'self.stage if stage == "train" else stage', "stage"),
    Fault("prac", "mask", 4, "criteria start from PrAC's first mask", PRAC_STUDY,
          '        dense=_dense("main", seed, found),\n    )',
          '        dense=_dense("main", seed, found),\n'
          '        start=leader.tickets["round-01"].mask,\n    )'),
    Fault("prac", "schedule", 4, "given sets are one round late", PRAC_ARMS,
          "sets[min(index + 1, len(sets) - 1)]", "sets[min(index, len(sets) - 1)]"),
    Fault("prac", "schedule", 4, "followers are as long as PrAC's round before", PRAC_ARMS,
          "self.spent[index] if self.spent", "self.spent[max(index - 1, 0)] if self.spent"),
    Fault("prac", "price", 3, "the look for CEP is free", COST,
          '        self.look(net, len(images), mask)\n        return predict',
          "        return predict"),
    Fault("prac", "price", 3, "broken-off epochs cost whole ones", RECIPE,
          "epochs * images + min(rest * self.batch, images)",
          "(epochs + (rest > 0)) * images"),
    Fault("prac", "price", 3, "IMP pays for the looks that score its tickets", PRAC_ARMS,
          "facts | account.trained.row()", "facts | account.spent.row()"),
    Fault("prac", "weights", 4, "re-initialised tickets keep their weights", PRAC_SCORES,
          'bench.net("reinit" if reinit else "init")', 'bench.net("init")'),
    Fault("prac", "weights", 4, "re-initialised tickets are rewound to the first draw", PRAC_SCORES,
          "theta = None if reinit else rewound(dense, bench.device)",
          "theta = rewound(dense, bench.device)"),
    Fault("prac", "start", 4, "rounds start from the initial weights", PRAC_ARMS,
          "begin = self.theta if index else self.start", "begin = self.start"),
    Fault("prac", "start", 4, "the rewind point is a step late", PRAC_ARMS,
          "Step(self.bench.rewind_steps, ", "Step(self.bench.rewind_steps + 1, "),
    Fault("prac", "test", 2, "CEP's net is selected on test images", PRAC_ARMS,
          "best = [KeepBest(data.validation, data)]", "best = [KeepBest(data.test, data)]"),
    Fault("prac", "test", 2, "IMP's tickets are selected on test images", RETRAIN,
          "KeepBest(data.validation, data) if len", "KeepBest(data.test, data) if len"),
    # ------------------------------------------------ DLTH
    Fault("dlth", "split", 2, "stages are trained on validation images", RST_ARMS,
          "images = self.bench.data.train\n", "images = self.bench.data.validation\n"),
    Fault("dlth", "split", 3, "the selected epoch is the best on training images", RETRAIN,
          "KeepBest(data.validation, data) if len", "KeepBest(data.train, data) if len"),
    Fault("dlth", "order", 1, "stages have an order by arm", RST_ARMS,
          "images, recipe, stage=stage, mask", "images, recipe, stage=stage + self.arm, mask"),
    Fault("dlth", "order", 1, "stages have an order by level", RST_ARMS,
          "images, recipe, stage=stage, mask",
          'images, recipe, stage=f"{stage}-{self.level}", mask'),
    Fault("dlth", "mask", 4, "each arm draws a random mask of its own", RST_ARMS,
          'random = gpu.generator("cpu", "mask", level, seed)',
          'random = gpu.generator("cpu", "mask", arm, level, seed)'),
    Fault("dlth", "mask", 4, "LTH's masks are of the initial weights", RST_ARMS,
          "mask = algorithm.magnitude_mask(done.last, dense, level)",
          "mask = algorithm.magnitude_mask(start, dense, level)"),
    Fault("dlth", "schedule", 4, "lambda is that of the step before", DLTH,
          "now = self.values[min(run.iteration, len(self.values) - 1)]",
          "now = self.values[max(0, min(run.iteration, len(self.values) - 1) - 1)]"),
    Fault("dlth", "schedule", 4, "the long control is a step short", RST_ARMS,
          "Step(bench.iterations(fine) + more, ", "Step(bench.iterations(fine) + more - 1, "),
    Fault("dlth", "schedule", 4, "RST-Square grows as RST does", RST_PARAMS,
          '"rst-square": 2', '"rst-square": 1'),
    Fault("dlth", "price", 3, "a training step costs two passes", COST,
          "STEP = 3.0", "STEP = 2.0"),
    Fault("dlth", "price", 3, "LTH-Iter pays for the dense net, too", RST_ARMS,
          "    how, work.account = work.cell.lth_iter, Account(work.bench)\n",
          "    how = work.cell.lth_iter\n"),
    Fault("dlth", "price", 3, "arms pay for the dense net's selection", RST_ARMS,
          "    work.account.looked = Cost()", "    _ = Cost()"),
    Fault("dlth", "weights", 4, "re-initialised tickets keep their weights", RST_ARMS,
          'controls.reinitialised(weights, bench.net("reinit").state(), mask)',
          "controls.reinitialised(weights, weights, mask)"),
    Fault("dlth", "weights", 4, "LTH keeps its trained weights", RST_ARMS,
          "        mask = _iterated(work, start)\n    work.net.rewind(start)",
          "        mask = _iterated(work, start)\n    work.net.rewind(trained)"),
    Fault("dlth", "start", 4, "abrupt's levels go on from one another", RST_ARMS,
          '        work = first.at("abrupt", level)\n        work.net.rewind(state)\n',
          '        work = first.at("abrupt", level)\n'),
    Fault("dlth", "start", 4, "LTH-Iter goes on from its trained weights", RST_ARMS,
          "        work.net.rewind(start)\n        work.train(recipe,",
          "        work.train(recipe,"),
    Fault("dlth", "test", 2, "transformations are watched on test images", RST_ARMS,
          "watch = algorithm.Watch(mask, data.validation, data, every)\n    further",
          "watch = algorithm.Watch(mask, data.test, data, every)\n    further"),
    Fault("dlth", "test", 2, "own learning rates are chosen on test images", RST_NUMBERS,
          'CHOSEN_BY = "last_validation"', 'CHOSEN_BY = "last_accuracy"'),
    Fault("dlth", "test", 2, "a rate is chosen by the best epoch, not the last", RST_ARMS,
          'self.accuracy(), "mask', 'done.scores["validation_accuracy"], "mask'),
    Fault("dlth", "schedule", 4, "damaged tickets are trained as RST's own is", RST_ARMS,
          "hurt.finish(places, longer(bench, cell.pressed))", "hurt.finish(places)"),
    Fault("dlth", "schedule", 4, "a case at another rate keeps the common one", RST_PARAMS,
          'model_copy(update={"lr": lr})', "model_copy(update={})"),
    Fault("dlth", "test", 2, "nets are selected on test images", RETRAIN,
          "KeepBest(data.validation, data) if len", "KeepBest(data.test, data) if len"),
    # ------------------------------------------------ the comparison
    Fault("compare", "split", 2, "PrAC's net is selected on training images", COMPARE_WAYS,
          "best = KeepBest(data.validation, data)", "best = KeepBest(data.train, data)"),
    Fault("compare", "split", 4, "PrAC trains on CET without CEP", COMPARE_WAYS,
          "lambda _, outcome: outcome.found.union", "lambda _, outcome: outcome.found.cet"),
    Fault("compare", "order", 1, "IMP has an order of its own", COMPARE_WAYS,
          "account.train(net, bench.data.train, p.recipe, mask=mask)",
          'account.train(net, bench.data.train, p.recipe, stage="imp", mask=mask)'),
    Fault("compare", "order", 1, "IMP's second run sees the batches of its first", COMPARE_WAYS,
          'f"{stage}, again" if self.again else stage', "stage"),
    Fault("compare", "order", 1, "tickets have an order by their size", RETRAIN,
          "            bench.order(),\n", "            bench.order(str(start.mask.alive)),\n"),
    Fault("compare", "mask", 4, "controls and swap take the lowest level's masks", COMPARE_STUDY,
          "tickets[ticket_name(bed.levels[-1])].mask", "tickets[ticket_name(bed.levels[0])].mask"),
    Fault("compare", "mask", 4, "IMP's shuffled mask is its own", COMPARE_STUDY,
          'return shuffle_layerwise(_last_mask(found, bed, "imp", seed), random)',
          'return _last_mask(found, bed, "imp", seed)'),
    Fault("compare", "mask", 4, "RST presses the magnitude mask", COMPARE_ARMS,
          "return press(bench, found.mask, account), account.spent",
          'return press(bench, one_shot(bench, "magnitude")[0].mask, account), account.spent'),
    Fault("compare", "schedule", 4, "tickets have one weight too few", COMPARE_WAYS,
          "after_pruning(self.dense.total, level)", "after_pruning(self.dense.total, level) - 1"),
    Fault("compare", "schedule", 4, "PrAC begins with its second round", COMPARE_WAYS,
          "rounds=range(p.max_rounds)", "rounds=range(1, p.max_rounds)"),
    Fault("compare", "price", 3, "a training step costs two passes", COST,
          "STEP = 3.0", "STEP = 2.0"),
    Fault("compare", "price", 3, "IMP gets its rewind point for nothing", COMPARE_WAYS,
          "    theta = bench.theta(net)\n    account.reach_rewind_point()\n    keep",
          "    theta = bench.theta(net)\n    keep"),
    Fault("compare", "price", 3, "tickets are selected for nothing", RETRAIN,
          "        account.look(net, epochs(job.recipe, len(data.train)) * len(data.validation), "
          "job.mask)\n", ""),
    Fault("compare", "weights", 4, "the swap's new weights are the old ones", COMPARE_ARMS,
          'bench.net("reinit" if weights == "reinit" else "init")', "bench.net()"),
    Fault("compare", "weights", 4, "COLT's copies keep their weights between rounds", COMPARE_WAYS,
          "net.rewind(theta, mask)\n        recipe",
          "net.rewind(net.state(), mask)\n        recipe"),
    Fault("compare", "start", 4, "long controls start from the rewind point", COMPARE_ARMS,
          "[Start(bench.net().state(), mask, longer)]",
          "[Start(bench.theta(bench.net()), mask, longer)]"),
    Fault("compare", "start", 4, "PrAC's rounds start from the initial weights", COMPARE_WAYS,
          "self.net.rewind(self.theta if index else self.start, mask)",
          "self.net.rewind(self.start, mask)"),
    Fault("compare", "test", 2, "PrAC's net is selected on test images", COMPARE_WAYS,
          "best = KeepBest(data.validation, data)", "best = KeepBest(data.test, data)"),
    Fault("compare", "test", 2, "tickets are selected on test images", RETRAIN,
          "start.state,\n            data.validation,", "start.state,\n            data.test,"),
    # ------------------------------------------------ Plant 'n' Seek
    Fault("plant_n_seek", "split", 2, "nets are trained on test samples", PLANT_ARMS,
          'x, y = self.data("train")', 'x, y = self.data("test")'),
    Fault("plant_n_seek", "split", 2, "conv nets are trained on test images", CONV_ARMS,
          "train(net, bench.data.train, bench.data, recipe",
          "train(net, bench.data.test, bench.data, recipe"),
    Fault("plant_n_seek", "order", 1, "final trainings have an order by regime", PLANT_ARMS,
          '[arm.mask for arm in arms], params.fit)',
          '[arm.mask for arm in arms], params.fit, f"train-{regime}")'),
    Fault("plant_n_seek", "order", 1, "conv trainings have an order by their mask", CONV_ARMS,
          "seed=order(bench.seed, stage), mask=mask)",
          "seed=(*order(bench.seed, stage), mask.alive if mask else 0), mask=mask)"),
    Fault("plant_n_seek", "mask", 4, "the shuffled mask is the ticket's own", PLANT_ARMS,
          'shuffled = shuffle_layerwise(ticket.mask, bench.random("shuffle"))',
          "shuffled = ticket.mask"),
    Fault("plant_n_seek", "mask", 4, "the shuffled conv mask is the ticket's own", CONV_ARMS,
          'mask = shuffle_layerwise(mask, bench.random("shuffle"))', "mask = bench.planted.mask"),
    Fault("plant_n_seek", "schedule", 4, "multishot's densities are a round ahead", PLANT_ARMS,
          "density = arm.density ** (turn / p.rounds)",
          "density = arm.density ** (min(turn + 1, p.rounds) / p.rounds)"),
    Fault("plant_n_seek", "schedule", 4, "annealed densities are an epoch late",
          POPUP, "self.density ** (epoch / epochs)",
          "self.density ** ((epoch - 1) / epochs)"),
    Fault("plant_n_seek", "price", 3, "multishot's rounds are free", PLANT_REPORT,
          "epochs += params.rounds * params.round_epochs", "epochs += 0"),
    Fault("plant_n_seek", "price", 3, "every round costs as much as the last training",
          PLANT_REPORT,
          "epochs += params.rounds * params.round_epochs", "epochs += params.rounds * epochs"),
    Fault("plant_n_seek", "weights", 4, "multishot goes on from its trained weights", PLANT_ARMS,
          "bench, [start] * len(masks), masks",
          "bench, [start] * len(masks) if turn == 1 else trained, masks"),
    Fault("plant_n_seek", "mask", 4, "multishot's later rounds train the dense net", PLANT_ARMS,
          "[arm.mask for arm in arms] if turn", "[bench.dense()] * len(arms) if turn"),
    Fault("plant_n_seek", "weights", 4, "the re-initialised ticket keeps its weights", PLANT_ARMS,
          'Arm("oracle_reinit", "gt", density, ticket.mask, fresh)',
          'Arm("oracle_reinit", "gt", density, ticket.mask)'),
    Fault("plant_n_seek", "start", 4, "unplanted mothers are planted", PLANT_ARMS,
          'self.planted.weights if mother == "planted" else self.planted.mother',
          "self.planted.weights"),
    Fault("plant_n_seek", "start", 4, "conv multishot is not reset", CONV_ARMS,
          'trained = fit(bench, net, start, mask, recipe, f"round-{turn}")',
          'trained = fit(bench, net, net.state(), mask, recipe, f"round-{turn}")'),
    Fault("plant_n_seek", "test", 2, "criteria score on test samples", PLANT_ARMS,
          'x, y = self.data("probe")', 'x, y = self.data("test")'),
    Fault("plant_n_seek", "test", 2, "conv criteria score on test images", CONV_ARMS,
          "images = self.data.train\n        order", "images = self.data.test\n        order"),
    # ------------------------------------------------ geometry, lines between stored tickets
    Fault("geometry", "order", 0, "the second training has the order of the first", OWN_LINES,
          "BedBench(setting, seed, again=True)", "BedBench(setting, seed)"),
    Fault("geometry", "start", 0, "lines begin at the weights before training", OWN_LINES,
          "found = examiner.line(ends[name].state, end)",
          "found = examiner.line(tickets[name].state, end)"),
    Fault("geometry", "weights", 0, "all lines end at the dense net", OWN_LINES,
          "[(name, other, ends[end].state) for", "[(name, other, ends[DENSE].state) for"),
    Fault("geometry", "answer", 0, "the gain has the other sign", OWN_LINES,
          "accuracy[name] - accuracy[DENSE]}", "accuracy[DENSE] - accuracy[name]}"),
    Fault("geometry", "answer", 0, "the bound minus the barrier has the other sign", LINE_NUMBERS,
          "params.lines.connected - value", "value - params.lines.connected"),
    Fault("geometry", "mask", 0, "COLT's tickets are IMP's", STORED,
          '"colt": f"score/{self.main}"', '"colt": "search/imp"'),
    Fault("geometry", "mask", 0, "the nearest ticket is that by difference", STORED,
          "abs(log((1 - ticket.mask.sparsity) / (1 - level)))",
          "abs(ticket.mask.sparsity - level)"),
    Fault("geometry", "mask", 0, "the dense net is a ticket of every arm", STORED,
          "if one.outcome and one.mask.sparsity]", "if one.outcome]"),
    # ------------------------------------------------ judging
    Fault("judging", "split", 0, "the start is measured on training images", JUDGE_ARMS,
          "net, images = bench.net(), bench.data.validation",
          "net, images = bench.net(), bench.data.train"),
    Fault("judging", "mask", 0, "IMP keeps what its last round but one kept", JUDGE_ARMS,
          "keep_top(magnitude(last.weights, last.mask), kept, within=last.mask)", "last.mask"),
    Fault("judging", "mask", 0, "the random mask is the shuffled one", JUDGE_STUDY,
          '"random": (random_mask(dense, given.mask.alive, seed), start, {})',
          '"random": (shuffled_mask(given.mask, seed), start, {})'),
    Fault("judging", "mask", 0, "all seeds have one random mask", JUDGE_STUDY,
          'gpu.generator("cpu", seed, "judge", "random")',
          'gpu.generator("cpu", "judge", "random")'),
    Fault("judging", "schedule", 0, "the long training is as short as the others", JUDGE_ARMS,
          "recipe = stretched(setting.recipe, images, len(bench.data.train))",
          "recipe = setting.recipe"),
    Fault("judging", "schedule", 0, "IMP has one round too many", JUDGE_ARMS,
          "        alive = max(kept, min(after_pruning(alive, rate), alive - 1))\n"
          "        left.append(alive)",
          "        left.append(alive)\n"
          "        alive = max(kept, min(after_pruning(alive, rate), alive - 1))"),
    Fault("judging", "price", 0, "IMP's search is free", JUDGE_ARMS,
          '_trained(bench, "imp", mask, theta, account.spent)',
          '_trained(bench, "imp", mask, theta, Cost())'),
    Fault("judging", "weights", 0, "the weights of the file are not used", JUDGE_ARMS,
          "            model.load_state_dict(given)\n", ""),
    Fault("judging", "weights", 0, "the fresh weights are those of the file", JUDGE_STUDY,
          'masks["reinit"] = given.mask, None, {}', 'masks["reinit"] = given.mask, own, {}'),
    Fault("judging", "start", 0, "IMP's rounds go on from trained weights", JUDGE_ARMS,
          "net.rewind(theta, mask)\n        account.train", "net.rewind(net.state(), mask)\n"
          "        account.train"),
    Fault("judging", "start", 0, "IMP's ticket starts from its trained weights", JUDGE_ARMS,
          'record = _trained(bench, "imp", mask, theta, account.spent)',
          'record = _trained(bench, "imp", mask, net.state(), account.spent)'),
    Fault("judging", "start", 0, "the dense net starts at the rewinding point", JUDGE_STUDY,
          '"dense": (dense, start, at_once)', '"dense": (dense, start, {})'),
    Fault("judging", "answer", 0, "a random mask need not be beaten", JUDGE_ANSWER,
          'DECIDING = ("judge-dense", "judge-random")', 'DECIDING = ("judge-dense",)'),
    Fault("judging", "answer", 0, "only two refuted claims refute", JUDGE_ANSWER,
          "if any(word in REFUTED for word in words)", "if all(word in REFUTED for word in words)"),
    Fault("judging", "answer", 0, "what is undecided wins", JUDGE_ANSWER,
          'return "undecided" if "undecided" in words else "a winning ticket"',
          'return "a winning ticket"'),
    Fault("judging", "answer", 0, "no difference to a random mask is no refutation", JUDGE_ANSWER,
          '("not reproduced", "no difference")', '("not reproduced",)'),
)  # fmt: skip


# ---------------------------------------------------------------- one fault


def planted(source: str, fault: Fault) -> str:
    """The source with the fault; SystemExit unless its text is there exactly once."""
    if source.count(fault.old) != 1:
        times = source.count(fault.old)
        raise SystemExit(f"{fault.name}: its text is in {fault.file} {times} times, not once")
    return source.replace(fault.old, fault.new)


PRELOADED = ("torch", "pandas", "matplotlib.pyplot", "pydantic", "scipy.stats", "joblib")
"""Imported once; every run of tests is a fork of this process, in which the package is not."""


def run_tests(copy: Path, arguments: list[str]) -> str:
    """The first test that fails, or "" if all pass; SystemExit if pytest itself cannot run."""
    command = ["-q", "-x", "--tb=line", "-p", "no:cacheprovider", *arguments]
    log = copy / "pytest.log"
    child = os.fork()
    if child == 0:
        _be_pytest(copy, command, log)
    code, text = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), log.read_text()
    if code == 0:
        return ""
    found = re.search(r"^(FAILED|ERROR) (\S+?::\S+)", text, re.M)
    if code != 1 or found is None:
        raise SystemExit(f"pytest ended with {code}:\n{text}")
    word = "" if found[1] == "FAILED" else " (the study does not run)"
    return found[2].removeprefix("tests/").partition("[")[0] + word


def _be_pytest(copy: Path, command: list[str], log: Path) -> NoReturn:
    """In a fork: run pytest in the copy, and never come back."""
    code = 70
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(copy)
        sys.path.insert(0, str(copy))
        os.environ["PYTHONPATH"] = str(copy)
        import pytest

        code = int(pytest.main(command))
        sys.stdout.flush()
    finally:
        os._exit(code)


@contextmanager
def planting(copy: Path, fault: Fault) -> Iterator[None]:
    """The fault is in the copy while the block runs."""
    path = copy / fault.file
    source = path.read_text()
    path.write_text(planted(source, fault))
    try:
        yield
    finally:
        path.write_text(source)


@cache
def check_sound(copy: Path, *arguments: str) -> None:
    """SystemExit if these tests fail without any fault: then they would catch everything."""
    if broken := run_tests(copy, list(arguments)):
        raise SystemExit(f"{broken} fails without any fault")


def verdict(copy: Path, fault: Fault) -> str:
    """The test that catches the fault: one of its paper's laws, else one of its other tests."""
    laws, others = PARTS[fault.paper]
    files = (f"tests/{name}" for name in others.split())
    own = [("tests/papers/test_laws.py", "-k", laws)] if laws else []
    for arguments in (*own, ("-m", "not slow", *files)):
        check_sound(copy, *arguments)
        with planting(copy, fault):
            if found := run_tests(copy, list(arguments)):
                return found
    return ""


def results(copy: Path, faults: list[Fault], state: Path) -> Iterator[tuple[Fault, str]]:
    """Each fault with the test that catches it ("" if none), from the state file where known."""
    known = json.loads(state.read_text()) if state.exists() else {}
    for fault in faults:
        if fault.name not in known:
            known[fault.name] = verdict(copy, fault)
            state.write_text(json.dumps(known, indent=1))
            print(f"{fault.name}: {known[fault.name] or 'SURVIVED'}", flush=True)
        yield fault, known[fault.name]


# ---------------------------------------------------------------- the campaign


def table(found: list[tuple[Fault, str]]) -> str:
    """The campaign as Markdown."""
    lines = ["| paper | kind | fault | law | caught by |", "| --- | --- | --- | --- | --- |"]
    for fault, test in found:
        by = f"`{test}`" if test else "**SURVIVED**"
        cells = (fault.paper, KINDS[fault.kind], fault.what, str(fault.law), by)
        lines.append(f"| {' | '.join(cells)} |")
    caught = sum(bool(test) for _, test in found)
    by_laws = sum(test.startswith("test_laws") for _, test in found)
    lines += ["", f"{caught} of {len(found)} caught, {by_laws} by the laws."]
    return "\n".join(lines) + "\n"


def check_texts(faults: list[Fault]) -> None:
    """SystemExit if a fault's text is gone, before anything runs."""
    for fault in faults:
        planted((ROOT / fault.file).read_text(), fault)


def preload() -> None:
    """Import what all runs need, under the instruction set that tests are pinned to."""
    ask = "import json; from ticketlab.instruction_set import pinned; print(json.dumps(pinned()))"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    message = subprocess.run([sys.executable, "-c", ask], env=env, check=True, capture_output=True)
    os.environ.clear()
    os.environ.update(json.loads(message.stdout) | {"OMP_NUM_THREADS": "1"})
    for name in PRELOADED:
        importlib.import_module(name)
    if loaded := [name for name in sys.modules if name.startswith("ticketlab")]:
        raise SystemExit(f"{loaded[0]} is imported, so no run would see its faults")


def main() -> None:
    """Run the campaign, or the part of it that one paper is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paper", choices=PARTS)
    parser.add_argument("--state", type=Path, default=Path(tempfile.gettempdir()) / "faults.json")
    parser.add_argument("--table", type=Path)
    asked = parser.parse_args()
    faults = [fault for fault in FAULTS if asked.paper in (None, fault.paper)]
    check_texts(faults)
    preload()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        subprocess.run(f"git archive HEAD | tar -x -C {copy}", shell=True, cwd=ROOT, check=True)
        found = list(results(copy, faults, asked.state))
    text = table(found)
    if asked.table:
        asked.table.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
