"""`baton`: what people type. Commands import what they need when they run, so that `baton --help` answers at once."""

import os
import sys
from pathlib import Path
from typing import Any

import typer

from cluster.spec.problem import SpecError
from deploy.cli import bench, demo, describe, operate, place, plan, probe, profile, serve, simulate, talk
from deploy.errors import DeployError, InputError

# Whatever typer raises for a wrong option; newer versions bring a click of their own, so it is found by inheritance.
_UsageError: Any = typer.BadParameter.__bases__[0]

# Ray reads these when it is imported: it would retry aloud, and warn of its own plans.
_QUIET_RAY = {"RAY_BACKEND_LOG_LEVEL": "error", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}

app = typer.Typer(
    help="Serves a language model on a prefill pool and a decode pool, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
serve.add_to(app)
talk.add_to(app)
operate.add_to(app)
describe.add_to(app)
bench.add_to(app)
demo.add_to(app)
place.add_to(app)
plan.add_to(app)
probe.add_to(app)
profile.add_to(app)
simulate.add_to(app)


def main(arguments: list[str] | None = None) -> None:
    """Exits with 2 for what the user has to correct, with 1 for what went wrong; each said in one line on stderr."""
    for name, value in _QUIET_RAY.items():
        os.environ.setdefault(name, value)
    _show_ray_its_token()
    try:
        sys.exit(app(args=arguments, prog_name="baton", standalone_mode=False))
    except _UsageError as error:
        _fail(2, error.format_message())
    except SpecError as error:
        for problem in error.problems:
            _fail_line(f"{error.source}: {problem}")
        sys.exit(2)
    except (DeployError, OSError) as error:
        _fail(2 if isinstance(error, InputError) else 1, str(error))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)


def _show_ray_its_token() -> None:
    """Ray asks for the token that was made with it, unless it was told not to; who joins has to be told to show it."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    if "RAY_AUTH_TOKEN" in os.environ or Path(path).is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _fail(code: int, message: str) -> None:
    _fail_line(message)
    sys.exit(code)


def _fail_line(message: str) -> None:
    print(f"baton: {' '.join(message.split())}", file=sys.stderr)
