"""How long each simulation of a question lasts: the same for all that are compared."""

from deploy.planner.goodput.question import Question

_LEAST_S, _MOST_S = 15.0, 600.0
_TURNS = 2.0  # a request may take so long at most within its SLOs; so often that
_LEAST_REQUESTS = 150


def interval_s(question: Question, rate: float) -> float:
    """`rate`: about what a node serves. Long enough for queues and batches to become what they are."""
    slos = question.slos
    longest_s = (slos.ttft_s or 0.0) + (slos.tpot_s or 0.0) * float(question.lengths.outputs.mean())
    return min(_MOST_S, max(_LEAST_S, _TURNS * longest_s, _LEAST_REQUESTS / max(rate, 1e-3)))
