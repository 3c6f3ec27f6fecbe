"""How long each simulation of a question lasts: long enough for queues and batches to become what they are."""

from deploy.planner.goodput.question import Question

LEAST_REQUESTS = 150
_LEAST_S, _MOST_S = 15.0, 600.0
_TTFTS = 10.0  # limits of TTFT: a queue that grows is to be seen
_CONFIRMED_STAYS = 5.0
_MOST_CONFIRMED_REQUESTS = 5000


def interval_s(question: Question) -> float:
    """At least, in the search; in any case until there are so many requests."""
    return min(_MOST_S, max(_LEAST_S, _TTFTS * (question.slos.ttft_s or 0.0), _stay_s(question)))


def confirmed_s(question: Question, rate: float) -> float:
    """At least, for what is confirmed at about this rate: several stays, so that a batch that grows is seen too.

    Beyond what the search takes, no longer than some thousands of requests last: large plans have as many in a
    shorter time.
    """
    return max(
        interval_s(question), min(_MOST_S, _CONFIRMED_STAYS * _stay_s(question), _MOST_CONFIRMED_REQUESTS / rate)
    )


def _stay_s(question: Question) -> float:
    """What a mean request may take within its SLOs."""
    ttft_s, tpot_s = question.slos.ttft_s or 0.0, question.slos.tpot_s or 0.0
    return ttft_s + tpot_s * float(question.lengths.outputs.mean())
