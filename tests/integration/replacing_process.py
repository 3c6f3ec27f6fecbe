"""A driver in Ray that has instances moved and flipped while requests run: `python -m ... FILE`; prints what came."""

import asyncio
import json
import sys
from pathlib import Path

import ray

from cluster.spec.load import load_deployment
from deploy.controller import Controller
from deploy.ray_handle import RayCluster
from deploy.ray_session import RaySession
from router.client import BatonClient

NUM_REQUESTS, NUM_TOKENS = 4, 400


async def tell(address: str, number: int, started: asyncio.Event) -> list[int]:
    """The tokens of a request, each of which has to be the next."""
    tokens: list[int] = []
    async with BatonClient(address) as client:
        sampling = {"seed": number, "temperature": 0.8, "max_tokens": NUM_TOKENS, "ignore_eos": True}
        async for delta in client.generate(f"story {number}", **sampling):
            assert delta.index == len(tokens)
            tokens += delta.token_ids
            if len(tokens) > 5:
                started.set()
    return tokens


async def tell_all(address: str, disturb) -> list[list[int]]:  # type: ignore[no-untyped-def]
    """`disturb` begins once all of them run."""
    started = [asyncio.Event() for _ in range(NUM_REQUESTS)]
    stories = [asyncio.create_task(tell(address, number, event)) for number, event in enumerate(started)]
    await asyncio.gather(*(event.wait() for event in started))
    await disturb()
    return list(await asyncio.gather(*stories))


def in_order_of_room(nodes: dict[str, str]) -> list[str]:
    """Those that decode, who shares its node first: there is room for it on the other node."""
    taken = list(nodes.values())
    return sorted(("decode-0", "decode-1"), key=lambda name: -taken.count(nodes[name]))


async def main(file: Path) -> dict[str, object]:
    deployment = load_deployment(file)
    here = ray.get_runtime_context().get_node_id()
    controller = Controller(deployment, RayCluster(deployment, here, on_loopback=False))
    placing = controller._placing
    await controller.up()
    address = controller.addresses().grpc_address
    before = dict(placing.seats)
    moved, flipped = in_order_of_room({name: seat.node for name, seat in before.items()})

    async def nothing() -> None: ...

    async def move() -> None:
        source = placing.seats[moved].node
        await controller.move(moved, next(node for node in ("a", "b") if node != source))

    async def flip() -> None:
        await controller.flip(flipped, "prefill")
        await controller.flip("prefill-0", "decode")

    found = [await tell_all(address, disturb) for disturb in (nothing, move, flip)]
    events = [f"{event.member}: {event.kind.value} {event.text}" for event in await controller.events(0)]
    nodes = {name: info.node for name, info in controller._infos.items()}
    await controller.stop()
    return {
        "moved": moved,
        "flipped": flipped,
        "same": found[0] == found[1] == found[2],
        "lengths": [len(tokens) for tokens in found[0]],
        "before": {name: seat.node for name, seat in before.items()},
        "after": {name: [seat.pool, seat.node] for name, seat in placing.seats.items()},
        "nodes": nodes,
        "events": events,
    }


if __name__ == "__main__":
    import os

    with RaySession(os.environ["RAY_ADDRESS"]):
        print(json.dumps(asyncio.run(main(Path(sys.argv[1])))), flush=True)
