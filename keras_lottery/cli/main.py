"""`keras-lottery COMMAND --flags`: finds the command and gives it its flags."""

import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from typing import Any

COMMANDS = {
    "find": "find tickets, with controls, into a folder with a report",
    "branch": "train controls of a run: other weights, other masks, other data",
    "status": "show what of a run is done, running and missing",
    "report": "write the page, figures and numbers of one run or of several",
    "analyze": "stability, connectivity, anatomy, overlap, landscape of runs",
    "presets": "list the papers' protocols",
    "strong": "find strong tickets in random networks, no weight trained",
    "export": "write a ticket as files to deploy, and measure them",
}
# What the library calls a flag of another name.
_ALSO = {"rewind_steps": "rewind_to", "rounds": "curves"}
_AMBIGUOUS = ("scale",)  # an option of the control noise, too


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
        known = ", ".join(COMMANDS)
        raise SystemExit(
            _fail("keras-lottery", f"Unknown command {name!r}. The commands are: {known}")
        )
    raise SystemExit(_run(f"keras_lottery.cli.{name}", f"keras-lottery {name}", arguments[1:]))


def _run(module_name: str, program: str, arguments: list[str]) -> int:
    from absl import flags

    module = importlib.import_module(module_name)
    key = flags.FLAGS.get_key_flags_for_module(module_name)
    places = _places(module.main)
    if any(a in ("--help", "-h", "-help", "--helpfull") for a in arguments):
        named = "".join(f"[{p}] " for p in places)
        print(f"{module.__doc__}\nusage: {program} {named}[--flags]\n")
        print("\n".join(map(_described, key)), end="")
        return 0
    names = [flag.name for flag in key]
    try:
        rest = flags.FLAGS([program, *arguments])[1:]
        if len(rest) > len(places) and not any(p.endswith("...") for p in places):
            raise ValueError(_unexpected(rest[len(places) :], places))
        module.main(*rest)
    except flags.UnrecognizedFlagError as error:
        known = ", ".join(f"--{name}" for name in sorted(names)) or "none"
        return _fail(program, f"{error} The flags are: {known}")
    except (flags.Error, ValueError, ImportError, OSError) as error:
        return _fail(program, _as_typed(str(error), [n for n in names if n not in _AMBIGUOUS]))
    except KeyboardInterrupt:
        return 130
    return 0


def _places(function: Callable[..., None]) -> list[str]:
    """What a command takes besides flags, as its help shows it."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name.upper() + ("..." if p.kind is p.VAR_POSITIONAL else "") for p in parameters]


def _unexpected(words: list[str], places: list[str]) -> str:
    wanted = f"{' '.join(places)} and flags" if places else "flags only"
    return f"Unexpected: {' '.join(words)}. Expected {wanted}, as --name=value."


def _described(flag: Any) -> str:
    """A flag's name, meaning, values and default, for the help."""
    words, values = flag.help, getattr(flag.parser, "enum_values", [])
    if values:
        words = f"{words.partition('>: ')[2]} One of: {', '.join(values)}."
    if "Default:" not in words:
        words += f" Default: {_default(flag.default)}."
    filled = textwrap.fill(words, 72, break_long_words=False, break_on_hyphens=False)
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
    return f"  {name}\n{textwrap.indent(filled, ' ' * 6)}\n"


def _default(value: Any) -> str:
    if value in (None, []):
        return "none"
    if isinstance(value, list):
        return ",".join(value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _as_typed(message: str, names: list[str]) -> str:
    """A message with settings named as the flags that they are."""
    message = re.sub(r"invalid literal for int.*: '.*'", "expected an integer", message)
    message = re.sub(r"could not convert string to float: '.*'", "expected a number", message)

    def flag(match: re.Match[str]) -> str:
        known = [n for n in (match[1], _ALSO.get(match[1])) if n in names]
        return f"--{known[0]}" if known else match[0]

    return re.sub(r"`(\w+)`", flag, message)


def _fail(program: str, message: str) -> int:
    print(f"{program}: {message}", file=sys.stderr)
    return 2
