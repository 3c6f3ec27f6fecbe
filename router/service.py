"""The router's process without Ray: the router and both its fronts, started and stopped together."""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

from cluster.instance.config import InstanceInfo
from cluster.text.tokenizer import Tokenizer
from cluster.topology.topology import Topology
from router.config import RouterConfig, RouterInfo
from router.generation import TextGenerator
from router.grpc_front import GrpcFront
from router.http_front import HttpFront
from router.model_info import ModelInfo
from router.operator_servicer import OperatorServicer
from router.router import Router
from router.validation import Limits


class RouterService:
    def __init__(self, config: RouterConfig) -> None:
        """Raises CheckpointTextError for a checkpoint without a usable tokenizer."""
        self.config = config
        path = Path(config.model_path)
        text = Tokenizer.from_checkpoint(path)
        model_info = ModelInfo.from_checkpoint(
            path, model=config.model_name, eos_token_ids=text.eos_token_ids, max_model_len=config.max_model_len
        )
        self.router = Router(config)
        limits = Limits(default_timeout_s=config.request_timeout_s)
        generator = TextGenerator(self.router, text, model_info, limits)
        self.router.observe(generator.metrics.handovers)
        self.router.observe(generator.metrics.outcomes)
        operator = OperatorServicer(self.router.operations, self.router.timeline, self.router.links)
        self._fronts = (GrpcFront(generator, operator), HttpFront(generator))

    async def start(self) -> RouterInfo:
        """Raises PortInUse, with nothing left listening."""
        config, (grpc_front, http_front) = self.config, self._fronts
        grpc_port = await grpc_front.start(config.grpc_host, config.grpc_port)
        try:
            http_port = await http_front.start(config.http_host, config.http_port)
        except Exception:
            await grpc_front.stop()
            raise
        work = (self._announce(), self.router.rescheduler.run(), self.router.links.run())
        self._tasks = [asyncio.create_task(each) for each in work]
        return RouterInfo(
            name=config.name,
            term=config.term,
            grpc_address=f"{config.grpc_host}:{grpc_port}",
            http_address=f"{config.http_host}:{http_port}",
            pid=os.getpid(),
        )

    async def set_instances(self, infos: Iterable[InstanceInfo]) -> None:
        await self.router.set_instances(infos)

    def topology(self) -> Topology:
        """What is believed of the links now, and as it was surveyed where no instance runs."""
        return self.router.links.topology()

    async def stop(self) -> None:
        """Requests under way end as aborted, and are told so."""
        for task in self._tasks:
            task.cancel()
        for front in self._fronts:
            await front.set_ready(False)
        await self.router.close()
        for front in self._fronts:
            await front.stop()

    async def _announce(self) -> None:
        """Health follows what can be served."""
        while True:
            await self.router.readiness_changed.wait()
            self.router.readiness_changed.clear()
            for front in self._fronts:
                await front.set_ready(self.router.is_ready)
