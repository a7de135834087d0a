"""Data sets by their name in tensorflow-datasets, which is imported only then."""

import contextlib
import importlib
import os
import re
import socket
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from keras_lottery.experiments.datasets import sources

_BATCH = 1000
_DOWNLOADER = "tensorflow_datasets.core.dataset_builder"


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> sources.Arrays:
    """Images and labels of the splits `train` and `test`.

    Args:
        name: `"name"`, `"name/config"`, `"name:version"`.
        data_dir: Where it lies or is downloaded to.

    Raises:
        ValueError: If there is no such data set, it cannot be had, or it is not one of
            labelled images of one size with both splits.
        ImportError: If tensorflow-datasets, or something that it needs, is not installed.
    """
    tfds = _package(name)
    folder = None if data_dir is None else os.fspath(data_dir)
    builder = _builder(tfds, name, folder)
    keys = _keys(name, builder.info)
    _check_splits(name, builder)
    try:
        _check_network(builder)
        builder.download_and_prepare()
    except ImportError as error:
        raise ImportError(f"Cannot prepare the data set {name!r}: {error}") from error
    except Exception as error:
        raise ValueError(
            f"Cannot download or prepare the data set {name!r}: {_first_line(error)} If this "
            "machine has no network, prepare it on another one with "
            f"`tfds build {name}`, copy the folder, and name it: --data_dir (`data_dir=`). "
            f"Received: data_dir={folder!r}"
        ) from error
    _check_splits(name, builder)
    parts = (_read(tfds, builder, split, keys) for split in ("train", "test"))
    try:
        return sources.checked(*(array for part in parts for array in part))
    except Exception as error:
        raise ValueError(f"Cannot use the data set {name!r}: {_first_line(error)}") from error


def _check_network(builder: Any) -> None:
    """Fails at once where tfds' downloader would try for minutes: no host has an address."""
    if getattr(builder.download_and_prepare, "__module__", "") != _DOWNLOADER:
        return  # something that may need no network stands in its place, as tfds' mock
    proxy = {"http_proxy", "https_proxy", "all_proxy"} & {key.lower() for key in os.environ}
    there = os.path.exists(os.fspath(getattr(builder, "data_path", "")))
    hosts = {urlsplit(url).hostname for url in getattr(builder, "url_infos", None) or {}}
    if proxy or there or not hosts:
        return
    for host in hosts:
        with contextlib.suppress(OSError):
            socket.getaddrinfo(host, 443)
            return
    raise OSError(f"no address of {', '.join(sorted(map(str, hosts)))} can be found.")


def _package(name: str) -> Any:
    try:
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise ImportError(
            f'{name!r} is neither "digits" nor the path of an .npz file, and the data sets of '
            f"tensorflow-datasets cannot be had ({error}): "
            "pip install 'keras-lottery[datasets]'"
        ) from error


def _builder(tfds: Any, name: str, folder: str | None) -> Any:
    try:
        return tfds.builder(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError as error:
        guess = re.search(r"Did you mean: .* -> (\w+)", str(error))
        raise ValueError(
            f'Unknown data set {name!r}. Expected "digits", the path of an .npz file, or a name '
            "of tensorflow-datasets; `tensorflow_datasets.list_builders()` lists them."
            + (f" Did you mean {guess[1]!r}?" if guess else "")
        ) from error
    except ImportError as error:
        raise ImportError(f"Cannot load the data set {name!r}: {error}") from error
    except Exception as error:
        raise ValueError(
            f'Cannot load the data set {name!r}: {_first_line(error)} Expected "digits", the path '
            "of an .npz file, or a name of tensorflow-datasets: `name`, `name/config` or "
            "`name:version`; `tensorflow_datasets.list_builders()` lists the names."
        ) from error


def _keys(name: str, info: Any) -> tuple[str, str]:
    """Which features are the image and its label."""
    features = dict(info.features) if hasattr(info.features, "keys") else {}
    for pair in (("image", "label"), info.supervised_keys):
        match pair:
            case (str(image), str(label)) if _is(features.get(image), 3, "uif") and _is(
                features.get(label), 0, "ui"
            ):
                return image, label
    described = {k: f"{f.shape} {f.np_dtype}" for k, f in features.items()} or str(info.features)
    raise ValueError(
        f"The data set {name!r} does not fit: expected an image of rank 3 as `image` and a class "
        f"index as `label`, or both as its supervised keys. Received: {described} with "
        f"supervised_keys={info.supervised_keys}"
    )


def _is(feature: Any, rank: int, kinds: str) -> bool:
    """Whether it is one array of that rank and of one of these kinds of types."""
    shape = getattr(feature, "shape", None)
    return (
        isinstance(shape, tuple) and len(shape) == rank and np.dtype(feature.np_dtype).kind in kinds
    )


def _check_splits(name: str, builder: Any) -> None:
    """Only what is known: before a download it may be nothing."""
    splits = list(builder.info.splits)
    if splits and not {"train", "test"} <= set(splits):
        raise ValueError(
            f"The data set {name!r} must have the splits train and test. Received: {splits}"
        )


def _read(
    tfds: Any, builder: Any, split: str, keys: tuple[str, str]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """All images and labels of a split, in the order in which they are stored."""
    images, labels = keys
    stored = builder.as_dataset(split=split, shuffle_files=False)
    pairs = stored.map(lambda example: (example[images], example[labels]))
    _check_sizes(tfds, builder.info.features[images].shape, pairs)
    batches = list(tfds.as_numpy(pairs.batch(_BATCH).prefetch(1)))
    if not batches:
        raise ValueError(f"its split {split} is empty.")
    x, y = zip(*batches, strict=True)
    return np.concatenate(x), np.concatenate(y)


def _check_sizes(tfds: Any, declared: tuple[int | None, ...], pairs: Any) -> None:
    if None not in declared:
        return
    first = None
    for image, _ in tfds.as_numpy(pairs):
        first = image.shape if first is None else first
        if image.shape != first:
            raise ValueError(
                f"its images differ in size, {first} and {image.shape}; all must have one size."
            )


def _first_line(error: Exception) -> str:
    """The gist of an error, as a sentence."""
    text = str(error).strip().split("\n")[0].strip().rstrip(".:")
    return f"{text or type(error).__name__}."
