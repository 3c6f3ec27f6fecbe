"""What the process of a rank other than 0 runs: it waits to be called, loads its part, and computes what it is told."""

import logging
import os
import threading
from collections.abc import Callable
from contextlib import closing, suppress

from cluster import failpoints
from cluster.links.device_region import Region
from cluster.links.weights_sender import WeightsSender
from cluster.ranks.callers import Callers
from cluster.ranks.channel import RankChannel
from cluster.ranks.rank_links import RankLinks
from cluster.ranks.setup import RankSetup
from cluster.secret import ClusterSecret

log = logging.getLogger(__name__)

GRACE_S = 0.1
"""What a rank is given to end by itself once rank 0 is gone; in a collective it cannot."""


class Follower:
    """`address` is where rank 0 finds it; `run` returns when rank 0 has hung up."""

    def __init__(self, secret: ClusterSecret, host: str, port: int = 0) -> None:
        self._secret = secret
        self._host = host
        self._callers = Callers(secret, host, port)
        self.address = self._callers.address

    def run(self, end_process: Callable[[int], None] = os._exit) -> None:
        """Computes for whoever proves to be of this cluster, once. `end_process` is called if that cannot end."""
        channel, hello = self._callers.first("hello")
        setup = RankSetup.from_hello(hello)
        is_gone, ended = threading.Event(), threading.Event()

        def watch() -> None:
            channel.wait_until_gone()
            is_gone.set()
            if not ended.wait(GRACE_S):
                end_process(1)

        watching = threading.Thread(target=watch, name="watch of rank 0", daemon=True)
        watching.start()
        try:
            self._follow(channel, setup)
        except Exception as error:
            # A collective fails in all ranks when one is lost; which one, rank 0 hears from its own channels.
            if not is_gone.wait(GRACE_S):
                _say_failed(channel, error)
                raise
        finally:
            ended.set()
            channel.shutdown()
            watching.join()
            channel.close()

    def close(self) -> None:
        """Nobody can call any more."""
        self._callers.close()

    def _follow(self, channel: RankChannel, setup: RankSetup) -> None:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `load_engine` does, which only rank 0 runs
        import torch

        from cluster.ranks.load import load_follower
        from cluster.ranks.step_frame import StepDecoder
        from cluster.ranks.weights import rank_weights_sender

        def agree(num_blocks: int) -> int:
            channel.say(room={"num_blocks": num_blocks})
            return channel.hear("granted").granted.num_blocks

        part = load_follower(setup, self._host, agree, self._secret)
        runner, weights = part.runner, rank_weights_sender(setup, part.runner.model)
        arguments = channel, setup, part.region, weights
        serving = threading.Thread(target=self._serve_links, args=arguments, name="links", daemon=True)
        serving.start()
        channel.say(ready={})
        decoder = StepDecoder()
        failpoint = f"ranks.{setup.rank}.step"
        with torch.inference_mode():
            while (frame := channel.receive()) is not None:
                failpoints.hit(failpoint)
                runner.compute(decoder.decode(frame))

    def _serve_links(self, steps: RankChannel, setup: RankSetup, region: Region, weights: WeightsSender) -> None:
        """For as long as rank 0 asks; an end of this is the rank's end."""
        try:
            channel, hello = self._callers.first("links_hello")
            with closing(channel):
                RankLinks(
                    channel,
                    hello,
                    region,
                    rank=setup.rank,
                    num_ranks=setup.world_size,
                    secret=self._secret,
                    host=self._host,
                    weights=weights,
                    callers=self._callers,
                ).run()
        except Exception as error:
            log.warning("a rank's links are over: %r", error)
            with suppress(OSError):  # rank 0 may be gone, and the links with it
                _say_failed(steps, error)
        finally:
            steps.shutdown()


def _say_failed(channel: RankChannel, error: Exception) -> None:
    channel.say(failed={"problem": f"{type(error).__name__}: {error}"})
