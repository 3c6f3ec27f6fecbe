"""Whether two requests under one id are the same request, sent twice."""

from dataclasses import replace
from struct import pack

from cluster.engine.sampling_params import SamplingParams
from router.backend import AdmittedRequest


def asks_the_same(meant: AdmittedRequest, found: AdmittedRequest, *, has_seed: bool) -> bool:
    """Whether the tokens of `found` are an answer to `meant`; without `has_seed` any seed's are."""
    wanted, sampling = meant.sampling_params, found.sampling_params
    if not has_seed:
        wanted = replace(wanted, seed=sampling.seed)
    return meant.prompt_token_ids == found.prompt_token_ids and _as_sent(wanted) == _as_sent(sampling)


def _as_sent(sampling: SamplingParams) -> tuple[bytes, SamplingParams]:
    """An instance has them, and gives them back, in single precision."""
    return pack("<2f", sampling.temperature, sampling.top_p), replace(sampling, temperature=0.0, top_p=1.0)
