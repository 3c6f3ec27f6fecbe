"""Chooses the next tokens from logits, for all sequences of a step at once.

Temperature, then top_k, then top_p, then a race: each token that is left arrives after an exponential time over its
weight, and the first wins, which it does with the probability of its weight. Times are keyed by (seed, position, token)
and each row is worked on as if it were alone: what else is in the batch changes nothing. The last bits of the logits,
which do depend on the batch, matter only where two tokens arrive almost together. (With one uniform number and
cumulative weights they would move every boundary.)
"""

from collections.abc import Sequence as List

import torch
from torch import Tensor

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler_output import SampledToken
from cluster.engine.sequence import Sequence, TokenLogprobs
from cluster.model.counter_hash import exponentials, key
from cluster.model.errors import NonFiniteLogits

LEAST_TEMPERATURE = 1e-5
"""Below it the best is taken: logits divided by less overflow, and would draw a token beyond the vocabulary."""

NUM_CANDIDATES = 1024
"""The best tokens, looked at before a whole row is raced, or sorted for top_p."""

NUM_RACERS = 256
SMALL_VOCAB_SIZE = 4096
"""Up to it all race at once; a larger vocabulary's best race beside one who runs for all the others."""


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
        keys = [key(params[row].seed, sequences[row].num_tokens) for row in drawn]
        token_ids[drawn] = _draw(logits[drawn], [params[row] for row in drawn], keys)
    logprobs = _logprobs(logits, token_ids, params)
    return [
        SampledToken(token_id=token_id, logprobs=logprobs.get(row)) for row, token_id in enumerate(token_ids.tolist())
    ]


def _argmax(logits: Tensor) -> Tensor:
    """The first of the greatest, or a NaN if there is one, [num_rows]."""
    if logits.device.type == "cpu":  # NumPy's is vectorised, and ten times as fast as torch's
        return torch.from_numpy(logits.numpy().argmax(axis=-1))
    return logits.argmax(dim=-1)


def _draw(logits: Tensor, params: List[SamplingParams], keys: List[int]) -> Tensor:
    """Token ids [num_rows]; rows are grouped by top_k, because another k may order ties in another way."""
    scaled = logits / torch.tensor([param.temperature for param in params], device=logits.device)[:, None]
    groups: dict[int, list[int]] = {}
    for row, param in enumerate(params):
        top_k = param.top_k if 0 < param.top_k < logits.shape[1] else 0
        groups.setdefault(top_k or (-1 if param.top_p < 1 else 0), []).append(row)
    token_ids = torch.empty(len(params), dtype=torch.long)
    for top_k, rows in groups.items():
        row_keys = torch.tensor([keys[row] for row in rows], device=logits.device)
        top_p = torch.tensor([params[row].top_p for row in rows], device=logits.device)
        token_ids[rows] = _draw_group(scaled[rows], top_k, top_p, row_keys).cpu()
    return token_ids


def _draw_group(scaled: Tensor, top_k: int, top_p: Tensor, keys: Tensor) -> Tensor:
    """`top_k` 0 needs no order at all; -1 is a row with top_p alone."""
    if top_k == 0:
        return _race_of_all(torch.softmax(scaled, dim=-1), keys)
    if top_k > 0:
        best, token_ids = scaled.topk(top_k)
        return _race(_nucleus(torch.softmax(best, dim=-1), top_p), token_ids, keys)
    probabilities = torch.softmax(scaled, dim=-1)
    best, token_ids = probabilities.topk(min(NUM_CANDIDATES, scaled.shape[1]))
    chosen = _race(_nucleus(best, top_p), token_ids, keys)
    rest = (best.double().sum(dim=-1) < top_p).nonzero().flatten()  # those whose nucleus is larger than the candidates
    if len(rest):
        best, token_ids = probabilities[rest].sort(dim=-1, descending=True, stable=True)
        chosen[rest] = _race(_nucleus(best, top_p[rest]), token_ids, keys[rest])
    return chosen


def _nucleus(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """Zeroes what comes after the smallest set of at least `top_p`, for probabilities in descending order."""
    before = probabilities.double().cumsum(dim=-1) - probabilities
    return probabilities.masked_fill((before >= top_p[:, None]).index_fill_(1, before.new_zeros(1).long(), False), 0.0)


def _race_of_all(probabilities: Tensor, keys: Tensor) -> Tensor:
    """The best candidates race beside one runner for all the others, who race among themselves where it wins."""
    vocab_size = probabilities.shape[1]
    every = torch.arange(vocab_size, device=keys.device)[None]
    if vocab_size <= SMALL_VOCAB_SIZE:
        return _race(probabilities, every, keys)
    best, token_ids = probabilities.topk(NUM_RACERS)
    others = (1 - best.double().sum(dim=-1, keepdim=True)).clamp(min=0)
    runner = token_ids.new_full((len(keys), 1), vocab_size)
    chosen = _race(torch.cat([best.double(), others], dim=-1), torch.cat([token_ids, runner], dim=-1), keys)
    rows = (chosen == vocab_size).nonzero().flatten()
    if len(rows):
        chosen[rows] = _race(probabilities[rows].scatter(1, token_ids[rows], 0.0), every, keys[rows])
    return chosen


def _race(weights: Tensor, token_ids: Tensor, keys: Tensor) -> Tensor:
    """The winner among tokens [num_rows, num_tokens] of these weights; never one of weight 0."""
    winner = (weights.double() / exponentials(keys, token_ids)).argmax(dim=-1, keepdim=True)
    return token_ids.expand(len(keys), -1).gather(1, winner).flatten()


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
