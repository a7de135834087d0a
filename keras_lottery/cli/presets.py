"""Lists the presets: the papers' protocols, as `keras-lottery find --preset=NAME` runs them."""

import shlex

from rich.console import Console

from keras_lottery.display import say
from keras_lottery.experiments.presets import PRESETS


def main(preset: str | None = None) -> None:
    """Prints all presets, or one with its settings."""
    from keras_lottery.experiments.presets import preset as named

    console = Console()
    if preset is not None:
        chosen = named(preset)
        say(console, f"{preset}: {chosen.words} ({chosen.source})\n\n--rounds={chosen.rounds}")
        for name, value in chosen.settings.items():
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            if value is not None:
                say(console, f"--{name}={shlex.quote(text)}")
        say(console, f"\nkeras-lottery find --preset={preset}")
        return
    width = max(map(len, PRESETS))
    for name, chosen in PRESETS.items():
        say(console, f"{name:{width}}  {chosen.words} ({chosen.source})")
    say(console, "\nkeras-lottery presets NAME shows the settings of one.")
