"""Predictions for published runs, from what each run states about itself."""

from planner.backtest.cells import UnsupportedRunError
from planner.backtest.predict import (
    COLUMNS,
    OUTCOME_COLUMNS,
    Prediction,
    RunEstimate,
    estimate_run,
    predict,
    predictions,
)
from planner.backtest.rows import Run, read_run

__all__ = [
    "COLUMNS",
    "OUTCOME_COLUMNS",
    "Prediction",
    "Run",
    "RunEstimate",
    "UnsupportedRunError",
    "estimate_run",
    "predict",
    "predictions",
    "read_run",
]
