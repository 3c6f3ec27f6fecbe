"""What a step of an engine is to a latency model, and what it yields: tokens, without a model."""

from collections.abc import Sequence as List

from cluster.engine.scheduler_output import SampledToken, SchedulerOutput
from cluster.latency.step_shape import StepShape


def shape_of(output: SchedulerOutput) -> StepShape:
    """One token after others is a decode, whether the request has any output yet or not."""
    num_prefill_tokens = num_decodes = context = 0
    squares = 0.0
    for entry in output.scheduled:
        end = entry.start + entry.num_tokens
        if entry.num_tokens == 1 and entry.start:
            num_decodes += 1
            context += end
        else:
            num_prefill_tokens += entry.num_tokens
            squares += float(end * end - entry.start * entry.start)
    return StepShape(num_prefill_tokens, squares, num_decodes, context)


class OwnTokens:
    """A runner: each request says nothing but its own token, so that no two have equal blocks of output."""

    def run(self, output: SchedulerOutput) -> List[SampledToken]:
        entries = output.scheduled
        return [SampledToken(token_id=it.sequence.sampling_params.seed) for it in entries if it.samples]


class NoChecksums:
    """There are no bytes that could be wrong."""

    def seal(self, block_ids: object) -> None:
        pass

    def get(self, block_ids: object) -> tuple[int, ...]:
        return ()

    def put(self, block_ids: object, checksums: object) -> None:
        pass
