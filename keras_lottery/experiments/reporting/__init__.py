"""The report of finished trainings: figures, tables, verdicts and one page of all."""

from keras_lottery.experiments.reporting.page import check_installed, write, write_findings
from keras_lottery.experiments.reporting.rows import RunData
from keras_lottery.experiments.reporting.statistics import Point, Summary, points, summarize
from keras_lottery.experiments.reporting.tables import numbers
from keras_lottery.experiments.reporting.verdicts import Verdict, verdicts

__all__ = [
    "Point",
    "RunData",
    "Summary",
    "Verdict",
    "check_installed",
    "numbers",
    "points",
    "summarize",
    "verdicts",
    "write",
    "write_findings",
]
