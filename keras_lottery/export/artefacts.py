"""Exported files as things that can be weighed, loaded and run."""

import contextlib
import gzip
import io
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_lottery.masks import Array

Inputs = dict[str, Array]

_UNKNOWN_SIDE = 16


class Program(NamedTuple):
    """A loaded model.

    Attributes:
        inputs: Dict of input name to `tf.TensorSpec`, the batch first.
        call: Dict of input name to array -> list of outputs.
    """

    inputs: dict[str, tf.TensorSpec]
    call: Callable[[Inputs], list[Array]]

    def fitted(self, x: Inputs) -> Inputs:
        """`x` under the names and in the dtypes of this program's inputs.

        Keras gives inputs without a name another one in each copy of a model; where names
        differ, they are matched in their order.

        Raises:
            ValueError: If the number of inputs or their shapes differ.
        """
        pairs = list(zip(sorted(self.inputs, key=_natural), sorted(x, key=_natural), strict=False))
        fits = all(self.inputs[a].shape.is_compatible_with(x[b].shape) for a, b in pairs)
        if len(x) != len(self.inputs) or not fits:
            shapes = {name: tuple(spec.shape) for name, spec in self.inputs.items()}
            received = {name: value.shape for name, value in x.items()}
            raise ValueError(f"Expected inputs of shapes {shapes}. Received: {received}")
        return {a: x[b].astype(self.inputs[a].dtype.as_numpy_dtype, copy=False) for a, b in pairs}


def _natural(name: str) -> tuple[str, int, str]:
    """Sorts `x_10` behind `x_9`."""
    stem, digits = re.fullmatch(r"(.*?)(\d*)", name, re.S).groups()  # type: ignore[union-attr]
    return stem, int(digits or 0), name


@dataclass(frozen=True)
class Artefact:
    """A file or folder that holds a model.

    Attributes:
        path: Where it lies.
        kind: `"keras"`, `"saved_model"` or `"litert"`.
    """

    path: Path
    kind: str

    @classmethod
    def at(cls, path: str | Path) -> "Artefact":
        """The artefact at a path; its kind is seen from what is there.

        Raises:
            ValueError: If nothing is there, or nothing that can be measured.
        """
        path = Path(path)
        kind = {".keras": "keras", ".tflite": "litert"}.get(path.suffix)
        if (path / "saved_model.pb").exists():
            kind = "saved_model"
        if not path.exists() or kind is None:
            raise ValueError(
                "Expected the path of a .keras file, a SavedModel folder or a .tflite file. "
                f"Received: {str(path)!r}" + ("" if path.exists() else ", which does not exist.")
            )
        return cls(path, kind)

    @property
    def files(self) -> list[Path]:
        """Its files."""
        inside = [p for p in sorted(self.path.rglob("*")) if p.is_file()]
        return inside or [self.path]

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return sum(p.stat().st_size for p in self.files)

    @property
    def gzipped(self) -> int:
        """Bytes after gzip, file by file."""
        return sum(len(gzip.compress(p.read_bytes(), 6)) for p in self.files)

    def load(self) -> Program:
        """Loads the model.

        Raises:
            ValueError: If it cannot be loaded, as when it is damaged.
        """
        try:
            return _LOADERS[self.kind](self.path)
        except Exception as error:  # each format has its own
            raise ValueError(f"Cannot load {str(self.path)!r}: {error}") from error


def keras_model(path: Path) -> keras.Model:
    """The model in a `.keras` file, not compiled.

    Raises:
        ValueError: If it cannot be loaded.
    """
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError(f"Cannot load {str(path)!r}: it is no `.keras` file, or half of one.")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # whatever a custom layer may raise
        raise ValueError(f"Cannot load {str(path)!r}: {error}") from error


def program(model: keras.Model) -> Program:
    """A Keras model as a traced function."""
    tensors = getattr(model, "inputs", None)
    if not tensors:
        raise ValueError(
            f"The inputs of {model.name!r} are not known, since it is a subclassed model. Measure "
            "its SavedModel instead, without a `reference`."
        )
    specs = {t.name: tf.TensorSpec(t.shape, t.dtype) for t in tensors}
    call = _concrete(model, list(specs.values()))
    return Program(specs, lambda x: _arrays(call(*[tf.constant(x[name]) for name in specs])))


def _concrete(model: keras.Model, specs: list[tf.TensorSpec]) -> Any:
    """The model as one graph for flat inputs of these shapes."""
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input

    @tf.function
    def call(*values: Any) -> Any:
        return model(keras.tree.pack_sequence_as(structure, list(values)), training=False)

    return call.get_concrete_function(*specs)


def _arrays(outputs: Any) -> list[Array]:
    return [np.asarray(v) for v in keras.tree.flatten(outputs)]


def _in_order(outputs: Mapping[str, Any]) -> list[Array]:
    """The outputs of a signature in the order in which Keras flattens those of the model."""
    numbered = all(re.fullmatch(r"output_\d+", name) for name in outputs)
    names = sorted(outputs, key=_natural) if numbered else sorted(outputs)
    return [np.asarray(outputs[name]) for name in names]


def _load_keras(path: Path) -> Program:
    return program(keras_model(path))


def _load_saved_model(path: Path) -> Program:
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]

    def run(x: Inputs) -> list[Array]:
        assert loaded is not None  # keeps the variables alive
        return _in_order(serve(**{name: tf.constant(value) for name, value in x.items()}))

    return Program(dict(serve.structured_input_signature[1]), run)


def _load_litert(path: Path) -> Program:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        interpreter = tf.lite.Interpreter(model_path=str(path))
    interpreter.allocate_tensors()  # unpacks the weights
    serve = interpreter.get_signature_runner()
    specs = {
        name: tf.TensorSpec([None if n < 1 else n for n in d["shape_signature"]], d["dtype"])
        for name, d in serve.get_input_details().items()
    }
    return Program(specs, lambda x: _in_order(serve(**x)))


_LOADERS: Mapping[str, Callable[[Path], Program]] = {
    "keras": _load_keras,
    "saved_model": _load_saved_model,
    "litert": _load_litert,
}


def random_inputs(specs: Mapping[str, tf.TensorSpec], batch: int, seed: int = 0) -> Inputs:
    """Random examples: normal floats, 0 or 1 for integers; unknown sizes are 16.

    Raises:
        ValueError: For strings.

    Example:

    >>> random_inputs({"x": tf.TensorSpec((None, 3), tf.float32)}, batch=2)["x"].shape
    (2, 3)
    """
    rng = np.random.default_rng(seed)
    inputs = {}
    for name, spec in specs.items():
        if spec.dtype == tf.string:
            raise ValueError(
                f"The input {name!r} takes strings: pass some, `x={{{name!r}: array}}`."
            )
        shape = (batch, *_known(spec.shape[1:]))
        values = rng.normal(size=shape) if spec.dtype.is_floating else rng.integers(0, 2, shape)
        inputs[name] = values.astype(spec.dtype.as_numpy_dtype)
    return inputs


def _known(shape: Iterable[int | None]) -> list[int]:
    return [_UNKNOWN_SIDE if side is None else side for side in shape]


def flops(model: keras.Model) -> int | None:
    """Floating-point operations of one example, multiply and add counted apart.

    As TensorFlow's profiler counts the dense graph; zeros are not skipped. Unknown sizes
    are 16. What runs in a loop, as recurrent layers do, is counted once.

    Returns:
        The number; `None` if the shapes of some operations are known only when they run.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> flops(model)  # 4 * 3 products, as many sums, bias included 3 more
    27
    """
    specs = [tf.TensorSpec((1, *_known(t.shape[1:])), t.dtype) for t in model.inputs]
    logger = tf.get_logger()
    level, eagerly = logger.level, tf.config.functions_run_eagerly()
    logger.setLevel("ERROR")
    tf.config.run_functions_eagerly(True)  # the profiler does not look into nested functions
    said = io.StringIO()
    try:
        graph = _concrete(model, specs).graph
        builder = tf.compat.v1.profiler.ProfileOptionBuilder
        options = builder(builder.float_operation()).with_empty_output().build()
        with contextlib.redirect_stderr(said):
            found = tf.compat.v1.profiler.profile(graph, options=options)
        return None if "incomplete shapes" in said.getvalue() else int(found.total_float_ops)
    finally:
        tf.config.run_functions_eagerly(eagerly)
        logger.setLevel(level)
