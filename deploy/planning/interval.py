"""How long each simulation of a question lasts: long enough for queues and batches to become what they are."""

from deploy.planner.goodput.question import Question

LEAST_REQUESTS = 150
_LEAST_S, _MOST_S = 15.0, 600.0
_TTFTS = 10.0  # limits of TTFT: a queue that grows is to be seen
_LONGER = 5.0
_MOST_CONFIRMED_REQUESTS = 3000


def interval_s(question: Question) -> float:
    """At least, in the search; in any case until there are so many requests. A mean stay within the SLOs or more."""
    ttft_s, tpot_s = question.slos.ttft_s or 0.0, question.slos.tpot_s or 0.0
    stay_s = ttft_s + tpot_s * float(question.lengths.outputs.mean())
    return min(_MOST_S, max(_LEAST_S, _TTFTS * ttft_s, stay_s))


def confirmed_s(question: Question, rate: float) -> float:
    """At least, for what is confirmed at about this rate: several stays, so that a batch that grows is seen too.

    Beyond what the search takes, no longer than some thousands of requests last: large plans have as many in a
    shorter time.
    """
    search_s = interval_s(question)
    return max(search_s, min(_MOST_S, _LONGER * search_s, _MOST_CONFIRMED_REQUESTS / rate))
