"""How long each simulation of a question lasts: long enough for queues and batches to become what they are."""

from deploy.planner.goodput.question import Question

LEAST_REQUESTS = 150
_LEAST_S, _MOST_S = 15.0, 600.0
_TTFTS = 10.0  # limits of TTFT: a queue that grows is to be seen
_STAYS = 1.0  # times what a mean request may take within its SLOs


def interval_s(question: Question) -> float:
    """At least; in any case until there are so many requests. What is confirmed lasts longer by far."""
    ttft_s, tpot_s = question.slos.ttft_s or 0.0, question.slos.tpot_s or 0.0
    stay_s = ttft_s + tpot_s * float(question.lengths.outputs.mean())
    return min(_MOST_S, max(_LEAST_S, _TTFTS * ttft_s, _STAYS * stay_s))
