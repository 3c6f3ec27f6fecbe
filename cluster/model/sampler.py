"""Chooses the next tokens from logits, for all sequences of a step at once.

Temperature, then top_k, then top_p, then one draw by the inverse of the cumulative distribution. The draw's uniform
number is keyed by (seed, position), and each row is worked on as if it were alone: what else is in the batch changes
nothing.
"""

from collections.abc import Sequence as List

import torch
from torch import Tensor

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler_output import SampledToken
from cluster.engine.sequence import Sequence, TokenLogprobs
from cluster.model.counter_hash import uniform
from cluster.model.errors import NonFiniteLogits

LEAST_TEMPERATURE = 1e-5
"""Below it the best is taken: logits divided by less overflow, and would draw a token beyond the vocabulary."""

NUM_TOP_P_CANDIDATES = 1024
"""The best tokens that are looked at before a whole row is sorted for top_p."""


def sample(logits: Tensor, sequences: List[Sequence]) -> list[SampledToken]:
    """One token for each row of fp32 logits [num_rows, vocab_size]; raises `NonFiniteLogits`."""
    params = [sequence.sampling_params for sequence in sequences]
    token_ids = _argmax(logits)
    best = logits[torch.arange(len(token_ids)), token_ids]
    if not bool(torch.isfinite(best).all()):
        wrong = torch.isfinite(best).logical_not().nonzero().flatten().tolist()
        raise NonFiniteLogits(tuple(sequences[row].request_id for row in wrong))
    drawn = [row for row, param in enumerate(params) if param.temperature >= LEAST_TEMPERATURE]
    if drawn:
        uniforms = [uniform(params[row].seed, sequences[row].num_tokens) for row in drawn]
        token_ids[drawn] = _draw(logits[drawn], [params[row] for row in drawn], uniforms)
    logprobs = _logprobs(logits, token_ids, params)
    return [
        SampledToken(token_id=token_id, logprobs=logprobs.get(row)) for row, token_id in enumerate(token_ids.tolist())
    ]


def _argmax(logits: Tensor) -> Tensor:
    """The first of the greatest, or a NaN if there is one, [num_rows]."""
    if logits.device.type == "cpu":  # NumPy's is vectorised, and ten times as fast as torch's
        return torch.from_numpy(logits.numpy().argmax(axis=-1))
    return logits.argmax(dim=-1)


def _draw(logits: Tensor, params: List[SamplingParams], uniforms: List[float]) -> Tensor:
    """Token ids [num_rows]; rows are grouped by top_k, because another k may order ties in another way."""
    scaled = logits / torch.tensor([param.temperature for param in params], device=logits.device)[:, None]
    groups: dict[int, list[int]] = {}
    for row, param in enumerate(params):
        top_k = param.top_k if 0 < param.top_k < logits.shape[1] else 0
        groups.setdefault(top_k or (-1 if param.top_p < 1 else 0), []).append(row)
    token_ids = torch.empty(len(params), dtype=torch.long)
    for top_k, rows in groups.items():
        keys = torch.tensor([uniforms[row] for row in rows], dtype=torch.float64, device=logits.device)
        top_p = torch.tensor([params[row].top_p for row in rows], device=logits.device)
        token_ids[rows] = _draw_group(scaled[rows], top_k, top_p, keys).cpu()
    return token_ids


def _draw_group(scaled: Tensor, top_k: int, top_p: Tensor, uniforms: Tensor) -> Tensor:
    """`top_k` 0 needs no order at all; -1 is a row with top_p alone."""
    if top_k == 0:
        return _invert(torch.softmax(scaled, dim=-1), uniforms)
    if top_k > 0:
        best, token_ids = scaled.topk(top_k)
        return _pick(token_ids, _invert(_nucleus(torch.softmax(best, dim=-1), top_p), uniforms))
    probabilities = torch.softmax(scaled, dim=-1)
    best, token_ids = probabilities.topk(min(NUM_TOP_P_CANDIDATES, scaled.shape[1]))
    chosen = _pick(token_ids, _invert(_nucleus(best, top_p), uniforms))
    rest = (best.double().sum(dim=-1) < top_p).nonzero().flatten()  # those whose nucleus is larger than the candidates
    if len(rest):
        best, token_ids = probabilities[rest].sort(dim=-1, descending=True, stable=True)
        chosen[rest] = _pick(token_ids, _invert(_nucleus(best, top_p[rest]), uniforms[rest]))
    return chosen


def _nucleus(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """Zeroes what comes after the smallest set of at least `top_p`, for probabilities in descending order."""
    before = probabilities.double().cumsum(dim=-1) - probabilities
    return probabilities.masked_fill((before >= top_p[:, None]).index_fill_(1, before.new_zeros(1).long(), False), 0.0)


def _invert(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The index at which the cumulative weight passes `uniform` of the whole; never one of weight 0."""
    cumulative = weights.double().cumsum(dim=-1)
    # A uniform number is at most 1 - 2**-32, so in double precision the threshold stays below the whole.
    return torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True).flatten()


def _pick(token_ids: Tensor, index: Tensor) -> Tensor:
    return token_ids.gather(1, index[:, None]).flatten()


def _logprobs(logits: Tensor, token_ids: Tensor, params: List[SamplingParams]) -> dict[int, TokenLogprobs]:
    """By row, of the model's own distribution: no temperature, top_k or top_p in it, as with OpenAI and vLLM."""
    rows = [row for row, param in enumerate(params) if param.logprobs is not None]
    if not rows:
        return {}
    logprobs = torch.log_softmax(logits[rows], dim=-1)
    chosen = logprobs.gather(1, token_ids[rows].to(logits.device)[:, None]).flatten().tolist()
    best, best_ids = logprobs.topk(max(params[row].logprobs or 0 for row in rows))
    found = {}
    for row, logprob, values, ids in zip(rows, chosen, best.tolist(), best_ids.tolist(), strict=True):
        count = params[row].logprobs or 0
        found[row] = TokenLogprobs(logprob, tuple(zip(ids[:count], values[:count], strict=True)))
    return found
