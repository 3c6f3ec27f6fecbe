"""`baton demo`: shows that nobody who reads along can tell what moved or died."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from cluster.spec.deployment import Deployment
    from deploy.demo import Demo, Story

_SHOWN_CHARS = 400


def add_to(app: typer.Typer) -> None:
    app.command()(demo)


def demo() -> None:
    """Start a local cluster and tell a few stories twice: undisturbed, then while one moves and an instance dies."""
    import asyncio

    from deploy.cli.show import display
    from deploy.service import running

    with running(_deployment(), None) as service:
        with display() as show:
            record = service.up(show)
        asyncio.run(_play(record.grpc_address))


def _deployment() -> "Deployment":
    """The embedded one, on ports that are drawn."""
    from pathlib import Path

    from cluster.spec.load import load_deployment

    deployment = load_deployment(Path(__file__).parents[1] / "local.yaml")
    fronts, metadata = deployment.spec.fronts, deployment.metadata
    drawn = fronts.model_copy(
        update={name: getattr(fronts, name).model_copy(update={"port": 0}) for name in ("grpc", "http")}
    )
    return deployment.model_copy(
        update={
            "spec": deployment.spec.model_copy(update={"fronts": drawn}),
            "metadata": metadata.model_copy(update={"name": "demo"}),
        }
    )


async def _play(address: str) -> None:
    """DeployError when the stories are not the same, or nothing happened to them."""
    from deploy.demo import PROMPTS, Demo, differences, explain
    from deploy.errors import DeployError
    from router.client import BatonClient

    async with BatonClient(address) as client:
        demo = Demo(client, _say)
        try:
            _say(f"{len(PROMPTS)} stories, undisturbed")
            with _live(demo):
                expected = await demo.undisturbed()
            _say("the same stories again; one of them is to move, and an instance is to be killed")
            with _live(demo):
                got = await demo.disturbed()
        except Exception as error:
            raise DeployError(f"the demonstration failed: {explain(error)}") from error
    _report(got)
    if found := differences(expected, got):
        raise DeployError(f"the text is not the same: {'; '.join(found)}")
    if not (demo.num_migrated and demo.num_killed):
        raise DeployError("the stories were over before anything happened to them; nothing is shown")
    print("Every story is the same, token by token, as when it was undisturbed.", flush=True)


def _say(text: str) -> None:
    print(text, flush=True)


def _report(stories: "Sequence[Story]") -> None:
    for story in stories:
        text = " ".join((story.prompt + story.text).split())
        shown = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]} ..."
        print(f"story {story.number}: {story.num_tokens} tokens, held by {story.holders}\n    {shown}", flush=True)


@contextmanager
def _live(demo: "Demo") -> Iterator[None]:
    """On a terminal the stories grow while they are told; elsewhere only what happens is said."""
    if not sys.stdout.isatty():
        yield
        return
    from rich.live import Live

    with Live(get_renderable=lambda: _render(demo.stories), refresh_per_second=8):
        yield


def _render(stories: "Sequence[Story]") -> "RenderableType":
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    panels = []
    for story in stories:
        title = " · ".join(filter(None, (f"story {story.number}", f"{story.num_tokens} tokens", story.holder)))
        panels.append(
            Panel(Text(" ".join(story.text.split())[-_SHOWN_CHARS:]), title=title, title_align="left", height=6)
        )
    return Group(*panels)
