"""The figures of the notebook: each takes tables, draws one question, returns the figure."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from ticketlab.pipeline.scaffold.paper_name.report import ACCURACY, ARMS
from ticketlab.study.plots import look, summarise
from ticketlab.study.tables import LABELS


def accuracy(scores: pd.DataFrame) -> Figure:
    """Test accuracy of each arm: the mean with its 95 % interval, and the nets of a seed joined."""
    figure, ax = plt.subplots()
    for seed, rows in scores.groupby("seed"):
        values = rows.set_index("arm")[ACCURACY].reindex(list(ARMS))
        label = "a seed" if seed == scores.seed.iloc[0] else None
        ax.plot(ARMS, values, color="0.8", lw=1, marker=".", label=label)
    looks = look(ARMS)
    for arm, mean, low, high, _ in summarise(scores, ["arm"], ACCURACY).itertuples(index=False):
        color, marker = looks[arm]["color"], looks[arm]["marker"]
        sides = [[mean - low], [high - mean]]
        ax.errorbar(arm, mean, sides, color=color, marker=marker, capsize=4)
    ax.set(ylabel=LABELS[ACCURACY], title="Accuracy of the dense net and of its tickets")
    ax.legend(fontsize=8)
    return figure
