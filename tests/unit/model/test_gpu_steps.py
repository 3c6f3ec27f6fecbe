"""The tokens that come of a GPU's way to compute; without a GPU, in Triton's interpreter."""

import pytest
import torch

from tests.unit.model.factories import BLOCK_SIZE, make_engine, make_runner, make_sequence, run
from tests.unit.model.gpu_kernels import DEVICE

pytestmark = [pytest.mark.unit, pytest.mark.skipif(DEVICE.type == "cuda", reason="tests/gpu does it on the GPU")]

from cluster.model.gpu_options import GpuOptions  # noqa: E402  # need Triton
from cluster.model.gpu_steps import GpuSteps  # noqa: E402
from cluster.model.triton_attention import TritonAttention  # noqa: E402


def test_tokens_are_those_of_the_plain_runner():
    def prompts() -> list:
        return [make_sequence(tokens, request_id=str(tokens), max_tokens=count) for tokens, count in ((5, 3), (3, 2))]

    plain, recorded = make_runner(), make_runner()
    attention = TritonAttention(recorded.kv_cache, recorded.model.shard)
    with torch.inference_mode():
        steps = GpuSteps(recorded.model, recorded.kv_cache, attention, GpuOptions(max_num_seqs=2))
    recorded.compute = steps.compute  # as a runner on a GPU does
    found, right = prompts(), prompts()
    run(make_engine(recorded), *found)
    run(make_engine(plain), *right)
    assert [sequence.output_token_ids for sequence in found] == [sequence.output_token_ids for sequence in right]


@pytest.mark.parametrize(("max_model_len", "max_context"), [(20, 24), (0, 64 * BLOCK_SIZE), (1 << 20, 64 * BLOCK_SIZE)])
def test_tables_are_as_wide_as_the_longest_sequence_that_is_served(max_model_len, max_context):
    runner = make_runner(num_blocks=64)
    attention = TritonAttention(runner.kv_cache, runner.model.shard)
    with torch.inference_mode():
        options = GpuOptions(max_num_seqs=1, max_model_len=max_model_len)
        steps = GpuSteps(runner.model, runner.kv_cache, attention, options)
    assert steps.graphs.inputs.max_context == max_context
