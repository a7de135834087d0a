"""Finds lottery tickets on a data set: train, prune, rewind, repeat, then the controls.

Without flags: LeNet-300-100 on scikit-learn's 1,797 handwritten digits.
"""

from absl import flags, logging

from keras_lottery.controls import NAMED as CONTROLS
from keras_lottery.criteria import NAMED as CRITERIA
from keras_lottery.experiments import datasets, report, runner
from keras_lottery.experiments.live import Live
from keras_lottery.experiments.store import FIGURE, REPORT, Store, free_folder
from keras_lottery.settings import REWIND

_DEFAULT = runner.Config()
_DATASET = flags.DEFINE_string(
    "dataset",
    _DEFAULT.dataset,
    "digits, or the path of an .npz with x_train, y_train, x_test, y_test.",
)
_MODEL = flags.DEFINE_string(
    "model",
    _DEFAULT.model,
    "lenet_300_100, or module:function, a function (input_shape, classes) -> Keras model with "
    "logits at the end.",
)
_ROUNDS = flags.DEFINE_integer(
    "rounds", _DEFAULT.rounds, "Trainings of the search, the dense one included.", lower_bound=1
)
_EPOCHS = flags.DEFINE_integer(
    "epochs",
    None,
    "Epochs of each training. Default: 25 on the digits, else the paper's 50,000 steps.",
    lower_bound=1,
)
_PRUNE_FRACTION = flags.DEFINE_float(
    "prune_fraction",
    _DEFAULT.prune_fraction,
    "Fraction of the surviving weights removed after each round, in (0, 1).",
)
_OUTPUT_FRACTION = flags.DEFINE_float(
    "output_fraction",
    None,
    "The same for the output layer, with --scope=layerwise. Default: half of --prune_fraction.",
)
_SCOPE = flags.DEFINE_enum("scope", _DEFAULT.scope, runner.SCOPES, "Where weights compete.")
_CRITERION = flags.DEFINE_enum(
    "criterion", _DEFAULT.criterion, sorted(CRITERIA), "What scores a weight."
)
_REWIND = flags.DEFINE_enum(
    "rewind",
    _DEFAULT.rewind,
    REWIND,
    "weights: back to the rewind point; learning_rate: keep the weights, set the schedule back; "
    "none: fine-tune.",
)
_REWIND_TO = flags.DEFINE_string(
    "rewind_to", _DEFAULT.rewind_to, "The rewind point: 500it (optimizer steps) or 2ep (epochs)."
)
_OPTIMIZER = flags.DEFINE_enum(
    "optimizer", _DEFAULT.optimizer, list(runner.OPTIMIZERS), "momentum is SGD with momentum 0.9."
)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", _DEFAULT.learning_rate, "Learning rate.")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", _DEFAULT.batch_size, "Images a step.", lower_bound=1
)
_SEED = flags.DEFINE_integer(
    "seed", _DEFAULT.seed, "Initialization, data order, validation part and controls.", 0
)
_CONTROLS = flags.DEFINE_list(
    "controls", [], f"Comma-separated, at every density: {', '.join(CONTROLS)}."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "A new folder for the run. Default: the first free runs/DATASET-MODEL-N."
)


def main() -> None:
    """Runs the command with the parsed flags."""
    config = runner.Config(
        dataset=_DATASET.value,
        model=_MODEL.value,
        rounds=_ROUNDS.value,
        epochs=_EPOCHS.value,
        batch_size=_BATCH_SIZE.value,
        optimizer=_OPTIMIZER.value,
        learning_rate=_LEARNING_RATE.value,
        prune_fraction=_PRUNE_FRACTION.value,
        output_fraction=_OUTPUT_FRACTION.value,
        scope=_SCOPE.value,
        criterion=_CRITERION.value,
        rewind=_REWIND.value,
        rewind_to=_REWIND_TO.value,
        controls=tuple(_CONTROLS.value),
        seed=_SEED.value,
    )
    with Live(
        quiet=logging.get_verbosity() < logging.INFO and flags.FLAGS["verbosity"].present
    ) as live:
        store = runner.run(config, _WORKDIR.value or str(free_folder("runs", _stem(config))), live)
        _conclude(store, live)


def _stem(config: runner.Config) -> str:
    return f"{datasets.short_name(config.dataset)}-{config.model.replace(':', '.')}"


def _conclude(store: Store, live: Live) -> None:
    live.say("")
    for verdict in report.verdicts(store.records(), store.config()["sizes"]["test"]):
        live.say(verdict.sentence())
    live.say(f"\nreport   {store.folder / REPORT}\npicture  {store.folder / FIGURE}")
    live.say(f"tickets  {store.folder}/ticket_*.safetensors")
    live.say(f"export   keras-lottery export {store.folder} --measure")
