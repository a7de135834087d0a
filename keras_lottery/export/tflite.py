"""`kl.export.litert`: a LiteRT (TFLite) file that stores pruned weights sparsely.

Weights of rank 2 and 4 of a density below about 0.7 get smaller: dense, attention and
recurrent layers, 1D and 2D convolutions, depthwise and transposed ones too. Embeddings and
3D convolutions do not. An alive weight costs about 6 bytes, in float16 4.

LiteRT reads some of the sparse forms wrongly that the converter of TensorFlow 2.21 writes;
`_refuse_misread` knows which.
"""

import os
import re
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lottery import weights
from keras_lottery.export.targets import checked_target, exportable
from keras_lottery.files import write_atomic
from keras_lottery.masks import Array

# Largest allowed difference to the model's outputs, in parts of the largest output.
_TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "int8": 1e-1}
_UNKNOWN_SIDE = 32


def litert(
    model: keras.Model,
    path: str | os.PathLike[str],
    dtype: str = "float32",
    sparse: bool = True,
    overwrite: bool = False,
    batch_size: int | None = None,
    check: Any = None,
) -> Path:
    """Writes a LiteRT file of the model's inference, and checks that it computes the same.

    The file needs LiteRT's built-in operations only and has one signature,
    `serving_default`. Before it is written it is run in its interpreter, with the default
    delegate, and compared with the model: outputs may differ by 1e-4 (float32), 1e-2
    (float16) or 1e-1 (int8) of the largest output; those that are no floats must be equal
    in float32. `Masked` layers are taken out in a copy; masks under `kl.enforce` stay in
    force.

    Args:
        model: A built Keras model that computes in float32.
        path: Of the file, ending in `.tflite`, in a folder that exists.
        dtype: Of the stored weights: `"float32"`, `"float16"`, or `"int8"` (dynamic range).
        sparse: Whether to store only the non-zeros of a weight of density below about 0.7.
            It makes float16 files smaller below 0.5; with int8 it is not possible.
        overwrite: Whether an existing file may be replaced.
        batch_size: Integer, or `None` for batches of any size. Recurrent layers need one,
            unless they are built with `unroll=True`.
        check: A batch of inputs to compare on, in the structure that the model takes.
            Default: random ones, of one sample and of three. Give real ones where random
            ones make no sense, or where the inputs of a subclassed model are no floats.

    Returns:
        The path.

    Raises:
        ValueError: For unknown options, a model that is not built, a path that cannot be
            written, operations that LiteRT lacks (names them and their layers), or weights
            whose sparse form LiteRT would read wrongly.
        RuntimeError: If the file does not run, or computes something else. Nothing is
            written in either case.

    Source: https://ai.google.dev/edge/litert; XNNPACK, 1911.09723, for sparse inference.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     litert(model, folder + "/small.tflite").name
    'small.tflite'
    """
    _check_options(dtype, sparse, batch_size)
    target = checked_target(path, ".tflite", overwrite)
    program = _program(exportable(model), batch_size, check)
    batches = _batches(program.specs, check)
    with warnings.catch_warnings():  # Keras's on names, TensorFlow's on its interpreter's future
        warnings.simplefilter("ignore")
        content = _converted(program, dtype, sparse)
        for batch in batches:
            _compare(content, program, batch, dtype)
    write_atomic(target, content)
    return target


def _check_options(dtype: str, sparse: bool, batch_size: int | None) -> None:
    if dtype not in _TOLERANCE:
        raise ValueError(f"`dtype` must be one of {list(_TOLERANCE)}. Received: {dtype!r}")
    if dtype == "int8" and sparse:
        raise ValueError(
            "LiteRT cannot run sparse int8 weights: the file converts, but its default "
            "delegate, XNNPACK, refuses it (failed to delegate CONV_2D). Pass `sparse=False`, "
            "or `dtype='float16'`."
        )
    if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
        raise ValueError(f"`batch_size` must be an integer > 0 or None. Received: {batch_size!r}")


@dataclass(frozen=True)
class _Program:
    """A model in inference as a function of a flat list of inputs."""

    model: keras.Model
    structure: Any
    specs: list[keras.layers.InputSpec]

    def __call__(self, *flat: Any) -> dict[str, Any]:
        inputs = keras.tree.pack_sequence_as(self.structure, list(flat))
        return _named(self.model(inputs, training=False), "output")


def _named(structure: Any, root: str) -> dict[str, Any]:
    """The leaves by name: the keys of a dict, else `root_0`, `root_1` and so on."""
    named = {}
    for path, leaf in keras.tree.flatten_with_path(structure):
        parts = path if path and isinstance(path[0], str) else (root, *(path or (0,)))
        named[re.sub(r"\W", "_", "_".join(map(str, parts)))] = leaf
    return named


def _program(model: keras.Model, batch_size: int | None, check: Any) -> _Program:
    structure = _inputs(model, check)
    specs = [
        keras.layers.InputSpec(
            shape=(batch_size or symbol.shape[0], *symbol.shape[1:]),
            dtype=symbol.dtype,
            name=re.sub(r"\W", "_", symbol.name),
        )
        for symbol in keras.tree.flatten(structure)
    ]
    return _Program(model, structure, specs)


def _inputs(model: keras.Model, check: Any) -> Any:
    """Symbolic inputs: those that the model declares, or like `check`, or as it was built."""
    declared = getattr(model, "input", None)
    if declared is None and getattr(model, "inputs", None):  # a Sequential model
        declared = model.inputs[0]
    if declared is not None:
        return declared
    shapes = (model.get_build_config() or {}).get("input_shape")
    if check is not None:
        arrays = keras.tree.map_structure(np.asarray, check)
        symbols = keras.tree.map_structure(lambda a: _symbol(a.shape, a.dtype.name), arrays)
    elif shapes is not None:
        symbols = keras.tree.map_shape_structure(lambda s: _symbol(s, model.input_dtype), shapes)
    else:
        raise ValueError(f"The inputs of {model.name!r} are not known. Pass some: `check=batch`.")
    for name, symbol in _named(symbols, "input").items():
        symbol.name = name
    return symbols


def _symbol(shape: Sequence[int | None], dtype: str) -> keras.KerasTensor:
    return keras.KerasTensor((None, *shape[1:]), dtype)


def _batches(specs: Sequence[Any], check: Any) -> list[list[Array]]:
    """What the file is compared on: each batch a list of arrays, in the order of `specs`."""
    flexible = specs[0].shape[0] is None
    if check is None:
        rng = np.random.default_rng(0)
        return [[_drawn(rng, s, n) for s in specs] for n in ((1, 3) if flexible else (1,))]
    arrays = [np.asarray(array) for array in keras.tree.flatten(check)]
    if len(arrays) != len(specs):
        raise ValueError(f"`check` must hold {len(specs)} arrays. Received: {len(arrays)}")
    arrays = [a.astype(spec.dtype) for a, spec in zip(arrays, specs, strict=True)]
    return [[a[:1] for a in arrays], arrays] if flexible else [arrays]


def _drawn(rng: np.random.Generator, spec: Any, size: int) -> Array:
    """Normal numbers; 0 and 1 for integers and bools."""
    shape = [spec.shape[0] or size, *(side or _UNKNOWN_SIDE for side in spec.shape[1:])]
    if spec.dtype == "string":
        raise ValueError(f"LiteRT takes no strings, which the input {spec.name!r} is made of.")
    values = rng.normal(size=shape) if "float" in spec.dtype else rng.integers(0, 2, shape)
    return values.astype(spec.dtype)


def _converted(program: _Program, dtype: str, sparse: bool) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        try:
            archive = keras.export.ExportArchive()
            archive.add_endpoint("serve", program.__call__, program.specs)
            archive.write_out(folder, verbose=False)
        except Exception as error:  # whatever a custom layer may raise
            raise ValueError(
                f"The model {program.model.name!r} cannot be traced into a graph, in which its "
                f"layers may use `keras.ops` and TensorFlow operations only. Received: {error}"
            ) from error
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT] if dtype != "float32" else []
        if sparse:
            converter.optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
        if dtype == "float16":
            converter.target_spec.supported_types = [tf.float16]
        try:
            return bytes(converter.convert())
        except Exception as error:  # the converter's own class is not public
            raise ValueError(_explained(str(error), program.model)) from None


def _explained(error: str, model: keras.Model) -> str:
    """The operations and layers that the converter's long message tells of, and what to do."""
    found = dict.fromkeys(re.findall(r'fused\["(\w+):", "([^"@]+)@', error))
    lacking = [
        f"{op} in the layer {_layer_of(node, model)!r}"
        for op, node in found
        if not op.endswith("PartitionedCall")
    ]
    advice = "Replace these layers, or use `model.export`, which writes a TensorFlow SavedModel."
    if "TensorList" in error:
        advice = "A recurrent layer needs `batch_size=1`, or to be built with `unroll=True`."
    computed = {layer.compute_dtype for layer in weights.sublayers(model)}
    if other := sorted(computed & {"float16", "bfloat16", "float64"}):
        advice = f"The model computes in {', '.join(other)}: build it under the float32 policy."
    what = f"LiteRT has no operation for: {', '.join(lacking)}" if lacking else error[:1000]
    return f"The model {model.name!r} cannot be converted. {what}. {advice}"


def _layer_of(node: str, model: keras.Model) -> str:
    """The innermost layer in a node's name; tracing adds `_1` to the layers' names."""
    names, parts = {layer.name for layer in weights.sublayers(model)}, node.split("/")
    if parts[0] != model.name:
        parts = [re.sub(r"_\d+$", "", part) for part in parts]
    return next((part for part in reversed(parts) if part in names), node)


def _compare(content: bytes, program: _Program, batch: Sequence[Array], dtype: str) -> None:
    """Raises unless the file computes on `batch` what the model computes."""
    name = program.model.name
    inputs = {spec.name: array for spec, array in zip(program.specs, batch, strict=True)}
    try:
        expected = program(*batch)
    except Exception as error:  # whatever a custom layer may raise
        raise ValueError(
            f"The model {name!r} cannot be called on inputs of shapes {[a.shape for a in batch]}: "
            f"pass others, `check=batch`. Received: {error}"
        ) from error
    try:
        interpreter = tf.lite.Interpreter(model_content=content)
        _refuse_misread(interpreter, program.model)
        actual = interpreter.get_signature_runner("serving_default")(**inputs)
    except RuntimeError as error:
        raise RuntimeError(
            f"LiteRT cannot run the converted model {name!r}: {error}. Pass `sparse=False`."
        ) from error
    for output, value in expected.items():
        _compare_output(output, keras.ops.convert_to_numpy(value), actual[output], dtype)


def _refuse_misread(interpreter: Any, model: keras.Model) -> None:
    """Sparse weights that LiteRT reads wrongly, whatever the inputs."""
    for tensor in interpreter.get_tensor_details():
        form, half = tensor["sparsity_parameters"], tensor["dtype"] == np.float16
        blocks = form["block_map"] if form else np.array([])
        block = form["dim_metadata"][-1]["dense_size"] if blocks.size else 1
        if blocks.size and (half or tensor["shape"][blocks[0]] % block):
            what = f"zeros in blocks of {block} inputs, unless float32 and {block} divides them"
        elif form and half and re.search(r"conv_transpose\d*$", tensor["name"]):
            what = "sparse float16 weights of transposed convolutions"
        else:
            continue
        raise ValueError(
            f"LiteRT reads the weights of {_layer_of(tensor['name'], model)!r}, of shape "
            f"{tensor['shape'].tolist()} (outputs first), wrongly: {what}. Pass `sparse=False` or "
            "another `dtype`."
        )


def _compare_output(name: str, expected: Array, actual: Array, dtype: str) -> None:
    if expected.shape != actual.shape:
        shapes = f"the shape {actual.shape}, the model's {expected.shape}"
        raise RuntimeError(f"The converted model's output {name!r} has {shapes}.")
    if not np.issubdtype(expected.dtype, np.floating) and dtype != "float32":
        return  # a rank or a comparison may change with the rounding of what it is of
    wide = expected.astype(np.float64)
    worst = np.abs(actual.astype(np.float64) - wide).max(initial=0)
    largest = np.abs(wide[np.isfinite(wide)]).max(initial=1e-3)
    if not np.allclose(actual, wide, rtol=0, atol=_TOLERANCE[dtype] * largest, equal_nan=True):
        raise RuntimeError(
            f"The converted model's output {name!r} differs from the model's by {worst:.2g}, the "
            f"largest value being {largest:.2g}; {_TOLERANCE[dtype]} of it is allowed in {dtype}. "
            "Pass `sparse=False` or another dtype; if random inputs make no sense for the model, "
            "pass real ones: `check=batch`."
        )
