"""When a sequence is over. Stop strings are not here: the front sees text."""

from collections.abc import Sequence as Tokens

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import SequenceStatus


def stop_status(
    output_token_ids: Tokens[int], num_prompt_tokens: int, params: SamplingParams, max_num_tokens: int
) -> SequenceStatus | None:
    """How a sequence with these tokens has ended, or None: it goes on. `max_num_tokens` counts the prompt too."""
    num_output_tokens = len(output_token_ids)
    if num_output_tokens and output_token_ids[-1] in params.stop_token_ids:
        return SequenceStatus.FINISHED_STOPPED
    if num_output_tokens >= params.max_tokens or num_prompt_tokens + num_output_tokens >= max_num_tokens:
        return SequenceStatus.FINISHED_LENGTH_CAPPED
    return None
