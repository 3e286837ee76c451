"""BATCHIE's answers: distances, thetas, scores and evaluations, straight from its files."""

from server.systems.batchie.distances import Distances, distances
from server.systems.batchie.evaluations import Evaluation, evaluation, evaluations
from server.systems.batchie.scores import score_table
from server.systems.batchie.screens import screen_table
from server.systems.batchie.simulation import Simulation
from server.systems.batchie.thetas import Thetas, thetas

__all__ = [
    "Distances",
    "Evaluation",
    "Simulation",
    "Thetas",
    "distances",
    "evaluation",
    "evaluations",
    "score_table",
    "screen_table",
    "thetas",
]
