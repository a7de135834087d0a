"""`keras-lottery COMMAND --flags`: finds the command and gives it its flags."""

import importlib
import inspect
import sys
from collections.abc import Callable

COMMANDS = {
    "find": "find tickets, with controls, into a folder with a report",
    "branch": "train controls of a run: other weights, other masks, other data",
    "status": "show what of a run is done, running and missing",
    "report": "write the page, figures and numbers of one run or of several",
    "presets": "list the papers' protocols",
    "export": "write a ticket as files to deploy, and measure them",
}


def usage() -> str:
    """What is printed without a command."""
    lines = [f"  {name:8} {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        ["usage: keras-lottery COMMAND [--flags]", "", *lines, "", "keras-lottery COMMAND --help"]
    )


def run() -> None:
    """The console script's entry point."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        raise SystemExit(0 if arguments else 2)
    name = arguments[0]
    if name not in COMMANDS:
        print(f"keras-lottery: unknown command {name!r}\n\n{usage()}", file=sys.stderr)
        raise SystemExit(2)
    raise SystemExit(_run(f"keras_lottery.cli.{name}", f"keras-lottery {name}", arguments[1:]))


def _run(module_name: str, program: str, arguments: list[str]) -> int:
    from absl import flags

    module = importlib.import_module(module_name)
    if any(a in ("--help", "-h", "-help", "--helpfull") for a in arguments):
        named = "".join(f"[{p}] " for p in _places(module.main))
        print(f"{module.__doc__}\nusage: {program} {named}[--flags]\n")
        print(flags.FLAGS.module_help(module_name))
        return 0
    try:
        rest = flags.FLAGS([program, *arguments])[1:]
        places = _places(module.main)
        if len(rest) > len(places) and not any(p.endswith("...") for p in places):
            raise ValueError(f"Unexpected arguments: {rest[len(places) :]}")
        module.main(*rest)
    except flags.UnrecognizedFlagError as error:
        known = sorted(f.name for f in flags.FLAGS.get_key_flags_for_module(module_name))
        return _fail(program, f"{error}\nThe flags are: {', '.join('--' + k for k in known)}")
    except flags.Error as error:
        return _fail(program, str(error))
    except (ValueError, ImportError) as error:
        return _fail(program, str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def _places(function: Callable[..., None]) -> list[str]:
    """What a command takes besides flags, as its help shows it."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name.upper() + ("..." if p.kind is p.VAR_POSITIONAL else "") for p in parameters]


def _fail(program: str, message: str) -> int:
    print(f"{program}: {message}", file=sys.stderr)
    return 2
