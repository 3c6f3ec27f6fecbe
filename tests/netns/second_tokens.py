"""How long the second token is in coming: where prefill and decode are two instances, KV travels in that time.

`python -m tests.netns.second_tokens ADDRESS NUM_TOKENS NUM_REQUESTS`: prompts of so many tokens, one after the other,
each of its own; prints the seconds as JSON.
"""

import asyncio
import json
import random
import sys
import time

from router.client import BatonClient

LARGEST_TOKEN_ID = 255  # every vocabulary has as many bytes


async def second_tokens(address: str, num_tokens: int, num_requests: int) -> list[float]:
    async with BatonClient(address) as client:
        return [await _second_token(client, num_tokens, random.Random(number)) for number in range(num_requests)]


async def _second_token(client: BatonClient, num_tokens: int, draw: random.Random) -> float:
    prompt = [draw.randint(0, LARGEST_TOKEN_ID) for _ in range(num_tokens)]
    came_s = []
    async for delta in client.generate(prompt, max_tokens=2, ignore_eos=True):
        came_s += [time.monotonic()] * len(delta.token_ids)
    return came_s[1] - came_s[0]


if __name__ == "__main__":
    address, num_tokens, num_requests = sys.argv[1:]
    print(json.dumps(asyncio.run(second_tokens(address, int(num_tokens), int(num_requests)))))
