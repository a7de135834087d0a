"""What a SavedModel serves: functions, the specs of their inputs, and their trace."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from keras_lottery import weights
from keras_lottery.export.packing import Held
from keras_lottery.export.targets import exportable
from keras_lottery.masks import Path

Signature: TypeAlias = keras.Model | tuple[Callable[..., Any], Any]

# Names of endpoints that are there anyway, and of what else the SavedModel holds.
_TAKEN = {"serve", "serving_default", "packed", "unpacker", "beside"}
_PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


@dataclass(frozen=True)
class Endpoint:
    """A function to be served, and the specs of its arguments."""

    function: Callable[..., Any]
    specs: list[Any]


def endpoints(
    model: keras.Model, signatures: Mapping[str, Signature], input_signature: Any
) -> dict[str, Endpoint]:
    """`serve`, which calls `model`, and the endpoints of `signatures`, by name.

    Raises:
        ValueError: If a name cannot be an endpoint's, a signature has another form, its
            model holds `Masked` layers or is not built, or its inputs are not known.
    """
    found = {"serve": _of_model(model, input_signature)}
    for name, signature in signatures.items():
        if not name.isidentifier() or name in _TAKEN or hasattr(tf.Module, name):
            raise ValueError(f"An endpoint cannot have the name {name!r}: choose another one.")
        if isinstance(signature, keras.Model):
            if exportable(signature) is not signature:
                raise ValueError(
                    f"The model of the signature {name!r} holds `Masked` layers. Take them out "
                    "with `kl.strip` first, and build it from the model that this returns."
                )
            found[name] = _of_model(signature, None)
        elif isinstance(signature, tuple) and len(signature) == 2 and callable(signature[0]):
            found[name] = Endpoint(signature[0], _specs(signature[1]))
        else:
            raise ValueError(
                f"Expected as the signature {name!r} a Keras model, or a pair of a function and "
                f"its input signature. Received: {signature!r}"
            )
    return found


@dataclass(frozen=True)
class Use:
    """What endpoints do with variables.

    Attributes:
        used: The model's variables that they read or update, by path.
        changed: Paths of those that they update.
        others: Variables of TensorFlow that they use beside the model's.
    """

    used: weights.Variables
    changed: set[Path]
    others: list[tf.Variable]


def use(found: Mapping[str, Endpoint], variables: weights.Variables) -> Use:
    """Finds out what the endpoints do with the model's `variables`.

    Raises:
        ValueError: If an endpoint cannot be traced, or calls Python code.
    """
    read: dict[int, tf.Variable] = {}
    changed: set[Path] = set()
    for name, endpoint in found.items():
        concrete = _tried(name, endpoint, variables, changed)
        _check_no_python(name, concrete)
        read.update((id(v), v) for v in concrete.variables)
    used = {p: v for p, v in variables.items() if id(v.value) in read or p in changed}
    known = {id(v.value) for v in variables.values()}
    return Use(used, changed, [v for i, v in read.items() if i not in known])


def _tried(name: str, endpoint: Endpoint, variables: weights.Variables, changed: set[Path]) -> Any:
    """A trace that reads the model's own variables; adds to `changed` what it would update."""

    def call(*inputs: Any) -> Any:
        with keras.StatelessScope() as scope:
            outputs = _values(endpoint.function(*inputs))
        updates = {path: scope.get_current_value(v) for path, v in variables.items()}
        changed.update(path for path, value in updates.items() if value is not None)
        return outputs

    try:
        function = tf.function(call, input_signature=endpoint.specs, autograph=False)
        return function.get_concrete_function()
    except Exception as error:
        raise ValueError(
            f"The endpoint {name!r} cannot be traced to a graph{_where(error)}. A SavedModel "
            "holds operations of TensorFlow only, no Python code; and the arguments must be as "
            "described, see `input_signature`. Received the arguments "
            f"{endpoint.specs}. {type(error).__name__}: {error}"
        ) from error


def served(endpoint: Endpoint, held: Held) -> Any:
    """The endpoint as a `tf.function` that uses the variables of the SavedModel.

    What a layer updates in a call, a random seed or the state of a recurrent layer, is
    updated in them too.
    """

    def serve(*inputs: Any) -> Any:
        with keras.StatelessScope(held.read()) as scope:
            before = [scope.get_current_value(variable) for variable, _ in held.plain]
            outputs = _values(endpoint.function(*inputs))
        for (variable, own), value in zip(held.plain, before, strict=True):
            if scope.get_current_value(variable) is not value:
                own.assign(scope.get_current_value(variable), read_value=False)
        return outputs

    return tf.function(serve, input_signature=endpoint.specs, autograph=False)


def _values(outputs: Any) -> Any:
    """Outputs that are variables, read while their values are those of the SavedModel."""
    return keras.tree.map_structure(
        lambda output: output.value if isinstance(output, keras.Variable) else output, outputs
    )


def _of_model(model: keras.Model, given: Any) -> Endpoint:
    specs = _own_specs(model) if given is None else _specs(given)
    return Endpoint(functools.partial(model, training=False), specs)


def _specs(given: Any) -> list[Any]:
    """Specs as users write them: a list or tuple of one for each argument, or just one."""
    arguments = given if isinstance(given, (list, tuple)) else [given]
    return [keras.tree.map_structure(_spec, argument) for argument in arguments]


def _spec(like: Any) -> tf.TensorSpec:
    if isinstance(like, tf.TensorSpec):
        return like
    shape, dtype = getattr(like, "shape", None), getattr(like, "dtype", None)
    if shape is None or dtype is None:
        raise ValueError(
            "Expected an `input_signature` of `tf.TensorSpec`s, or of objects with a shape and "
            f"a dtype. Received in it: {like!r}"
        )
    return tf.TensorSpec(tuple(shape), dtype, getattr(like, "name", None))


def _own_specs(model: keras.Model) -> list[Any]:
    """The inputs of the model for any batch size, the one its states have apart."""
    stateful = any(getattr(layer, "stateful", False) for layer in weights.sublayers(model))

    def spec(x: Any) -> tf.TensorSpec:
        shape = x.shape if stateful else (None, *x.shape[1:])
        return tf.TensorSpec(shape, x.dtype, x.name)

    if isinstance(model, keras.Sequential):
        return [spec(model.inputs[0])]
    if getattr(model, "inputs", None):
        return [keras.tree.map_structure(spec, model.input)]
    config = model.get_build_config() or {}
    try:
        shapes = list(dict(config.get("shapes_dict", config)).values())
        if shapes:
            return [_of_shapes(s, model.input_dtype) for s in shapes]
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"The inputs of the model {model.name!r} are not known. Call it on a batch first, or "
        "pass `input_signature=`, say [tf.TensorSpec((None, 8), 'float32')]."
    )


def _of_shapes(shapes: Any, dtype: str) -> Any:
    """Specs in the structure of the shapes that a model was built with."""
    if isinstance(shapes, Mapping):
        return {key: _of_shapes(shape, dtype) for key, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return tf.TensorSpec((None, *shapes[1:]), dtype)
    return [_of_shapes(shape, dtype) for shape in shapes]


def _where(error: BaseException) -> str:
    """The innermost layer in whose code the error was raised, as words."""
    layer, trace = None, error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        layer = owner if isinstance(owner, keras.layers.Layer) else layer
        trace = trace.tb_next
    return "" if layer is None else f", in the layer {layer.name!r} ({type(layer).__name__})"


def _check_no_python(name: str, concrete: Any) -> None:
    graph = concrete.graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    python = sorted({node.name for node in nodes if node.op in _PYTHON_OPS})
    if python:
        raise ValueError(
            f"The endpoint {name!r} calls Python code, which a SavedModel cannot hold, in the "
            f"operations {python}. Write what `tf.numpy_function` or `tf.py_function` does "
            "there with `keras.ops` or TensorFlow."
        )
