"""Chooses the next tokens from logits, for all sequences of a step at once.

Temperature, then top_k, then top_p, then a race: each token that is left arrives after an exponential time over its
weight, and the first wins, which it does with the probability of its weight. Times are keyed by (seed, position, token)
and each row is worked on as if it were alone: what else is in the batch changes nothing. The last bits of the logits,
which do depend on the batch, matter only where two tokens arrive almost together. (With one uniform number and
cumulative weights they would move every boundary.)
"""

from collections.abc import Sequence as List
from dataclasses import dataclass
from functools import cache
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler_output import SampledToken
from cluster.engine.sequence import Sequence, TokenLogprobs
from cluster.model.counter_hash import exponentials, key
from cluster.model.errors import NonFiniteLogits
from cluster.model.host_copy import HostCopy

LEAST_TEMPERATURE = 1e-5
"""Below it the best is taken: logits divided by less overflow, and would draw a token beyond the vocabulary."""

NUM_CANDIDATES = 1024
"""The best tokens, looked at before a whole row is raced, or sorted for top_p."""

NUM_RACERS = 256
SMALL_VOCAB_SIZE = 4096
"""Up to it all race at once; a larger vocabulary's best race beside one who runs for all the others."""


def sample(logits: Tensor, sequences: List[Sequence]) -> list[SampledToken]:
    """One token for each row of fp32 logits [num_rows, vocab_size]; raises `NonFiniteLogits`."""
    return Sampling(logits, sequences).collect()


class Sampling:
    """Tokens that are being drawn. On a GPU that goes on beside the host, behind what computes the logits.

    `collect` waits for nothing but the tokens themselves, unless one of them takes a second look or logprobs; the
    logits may be written over when it is done.
    """

    def __init__(self, logits: Tensor, sequences: List[Sequence]) -> None:
        """One row of fp32 logits [num_rows, vocab_size] for each sequence."""
        self._logits, self._sequences = logits, sequences
        self._params = [sequence.sampling_params for sequence in sequences]
        greatest, self._token_ids = _greatest(logits)
        drawn = [row for row, param in enumerate(self._params) if param.temperature >= LEAST_TEMPERATURE]
        self._draws = _draws(logits, drawn, sequences) if drawn else []
        self._is_final = torch.ones(len(logits) if drawn else 0, dtype=torch.bool, device=logits.device)
        for draw in self._draws:
            chosen, is_final_draw = draw.attempt()
            self._token_ids.index_copy_(0, draw.rows, chosen)
            self._is_final.index_copy_(0, draw.rows, is_final_draw)
        self._results = HostCopy(self._token_ids, greatest, self._is_final)

    def wait(self) -> None:
        """Until the tokens have arrived, or as many of them as need no second look."""
        self._results.wait()

    def collect(self) -> list[SampledToken]:
        """In the order of the rows; raises `NonFiniteLogits`."""
        chosen_ids, greatest, final = (results.tolist() for results in self._results.wait())
        if not all(map(isfinite, greatest)):
            rows = zip(self._sequences, greatest, strict=True)
            raise NonFiniteLogits(tuple(sequence.request_id for sequence, value in rows if not isfinite(value)))
        if not all(final):
            for draw in self._draws:
                draw.finish(self._token_ids, self._is_final)
            chosen_ids = self._token_ids.tolist()
        logprobs = _logprobs(self._logits, self._token_ids, self._params)
        if not logprobs:
            return [_plain(token_id) for token_id in chosen_ids]
        return [SampledToken(token_id=token_id, logprobs=logprobs.get(row)) for row, token_id in enumerate(chosen_ids)]


@cache
def _plain(token_id: int) -> SampledToken:
    """The same one each time: a GPU waits while they are made."""
    return SampledToken(token_id=token_id)


def _greatest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row the greatest, and where it is first; a NaN if there is one."""
    if logits.device.type != "cpu":
        return torch.max(logits, dim=-1)
    rows = logits.numpy()  # NumPy's argmax is vectorised, and ten times as fast as torch's
    token_ids = rows.argmax(axis=-1)
    return torch.from_numpy(rows[np.arange(len(rows)), token_ids]), torch.from_numpy(token_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Rows that are drawn in the same way: `top_k` 0 needs no order at all; -1 is a row with top_p alone."""

    top_k: int
    rows: Tensor
    scaled: Tensor  # [num_rows, vocab_size]: logits over temperature
    top_p: Tensor
    keys: Tensor

    def attempt(self) -> tuple[Tensor, Tensor]:
        """Token ids [num_rows], and whether they are final: of the others, more than the best has to be looked at."""
        if self.top_k > 0:
            best, token_ids = self.scaled.topk(self.top_k)
            chosen = _race(_nucleus(torch.softmax(best, dim=-1), self.top_p), token_ids, self.keys)
            return chosen, torch.ones_like(chosen, dtype=torch.bool)
        probabilities = torch.softmax(self.scaled, dim=-1)
        if self.top_k == 0:
            return _race_of_all(probabilities, self.keys)
        best, token_ids = probabilities.topk(min(NUM_CANDIDATES, self.scaled.shape[1]))
        chosen = _race(_nucleus(best, self.top_p), token_ids, self.keys)
        return chosen, best.double().sum(dim=-1) >= self.top_p  # else its nucleus is larger than the candidates

    def finish(self, token_ids: Tensor, is_final: Tensor) -> None:
        """Puts what is not final yet in its place among all rows' `token_ids`."""
        left = is_final[self.rows].logical_not().nonzero().flatten()
        if len(left) == 0:
            return
        probabilities, keys = torch.softmax(self.scaled[left], dim=-1), self.keys[left]
        if self.top_k == 0:
            chosen = _race_of_others(probabilities, keys)
        else:
            best, best_ids = probabilities.sort(dim=-1, descending=True, stable=True)
            chosen = _race(_nucleus(best, self.top_p[left]), best_ids, keys)
        token_ids[self.rows[left]] = chosen


def _draws(logits: Tensor, drawn: List[int], sequences: List[Sequence]) -> list[Draw]:
    """Rows are grouped by top_k, because another k may order ties in another way."""
    vocab_size, device = logits.shape[1], logits.device
    groups: dict[int, list[int]] = {}
    for row in drawn:
        param = sequences[row].sampling_params
        top_k = param.top_k if 0 < param.top_k < vocab_size else 0
        groups.setdefault(top_k or (-1 if param.top_p < 1 else 0), []).append(row)
    draws = []
    for top_k, rows in groups.items():
        params = [sequences[row].sampling_params for row in rows]
        index = _to(device, rows, torch.long)
        temperatures = _to(device, [param.temperature for param in params], torch.float32)
        draws.append(
            Draw(
                top_k=top_k,
                rows=index,
                scaled=logits.index_select(0, index) / temperatures[:, None],
                top_p=_to(device, [param.top_p for param in params], torch.float32),
                keys=_to(device, [key(sequences[row].sampling_params.seed, sequences[row].num_tokens) for row in rows]),
            )
        )
    return draws


def _to(device: torch.device, values: List[int] | List[float], dtype: torch.dtype = torch.long) -> Tensor:
    """To a GPU without waiting for what it is at."""
    tensor = torch.tensor(values, dtype=dtype)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _nucleus(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """Zeroes what comes after the smallest set of at least `top_p`, for probabilities in descending order."""
    before = probabilities.double().cumsum(dim=-1) - probabilities
    return probabilities.masked_fill((before >= top_p[:, None]).index_fill_(1, before.new_zeros(1).long(), False), 0.0)


def _race_of_all(probabilities: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """The best candidates race beside one runner for all the others. Where that one wins, the result is not final."""
    vocab_size = probabilities.shape[1]
    if vocab_size <= SMALL_VOCAB_SIZE:
        chosen = _race(probabilities, torch.arange(vocab_size, device=keys.device)[None], keys)
        return chosen, torch.ones_like(chosen, dtype=torch.bool)
    best, token_ids = probabilities.topk(NUM_RACERS)
    others = (1 - best.double().sum(dim=-1, keepdim=True)).clamp(min=0)
    runner = token_ids.new_full((len(keys), 1), vocab_size)
    chosen = _race(torch.cat([best.double(), others], dim=-1), torch.cat([token_ids, runner], dim=-1), keys)
    return chosen, chosen != vocab_size


def _race_of_others(probabilities: Tensor, keys: Tensor) -> Tensor:
    """Among those who were one runner in `_race_of_all`."""
    token_ids = probabilities.topk(NUM_RACERS).indices
    every = torch.arange(probabilities.shape[1], device=keys.device)[None]
    return _race(probabilities.scatter(1, token_ids, 0.0), every, keys)


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
