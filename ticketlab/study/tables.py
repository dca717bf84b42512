"""The tables that reports and notebooks share: columns with units, intervals as text."""

from typing import Literal

Accuracy = Literal["last_accuracy", "selected_accuracy"]
"""Test accuracy in percent after the last epoch, or at the epoch that is best on validation."""

LABELS: dict[Accuracy, str] = {
    "last_accuracy": "test accuracy (%), last epoch",
    "selected_accuracy": "test accuracy (%), epoch chosen on validation",
}
"""What tables and figures call each accuracy."""
