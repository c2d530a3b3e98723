"""Dark and gain references: read from a person's file, stored once in topic ``references``, fetched from there.

Also the calibrations of automatic thresholds, which lie in the same topic.
"""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import FaultError, InputError
from service.kafka import (
    REQUEST_TIMEOUT_S,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
    consumer,
    partition_bounds,
    producer,
    raise_for,
)
from service.scan_log import ScanLog
from topics import calibration, reference
from topics.calibration import Calibration
from topics.errors import DecodeError
from topics.reference import SHAPE, sha256_of
from topics.registry import REFERENCES
from topics.scan_log import ReferenceStored

if TYPE_CHECKING:
    import h5py

_HDF5: Final = (".h5", ".hdf5", ".emd")
_SUFFIXES: Final = (".npy", *_HDF5, ".dm3", ".dm4", ".ser", ".mrc")
_FILE_AND_DATASET: Final = re.compile(r"(.+\.(?:h5|hdf5|emd)):(/.+)", re.IGNORECASE)
_MRC_MODES: Final = (0, 1, 2, 6)  # int8, int16, float32, uint16; of others ncempy makes float64 without a word
_LISTED: Final = 10
_PIXEL_MAX: Final = 65_535


def read_reference(path: Path, kind: Literal["dark", "gain"]) -> NDArray[np.float32]:
    """Read a dark or gain reference from a file.

    It reads .npy, HDF5 (.h5, .hdf5, .emd), Digital Micrograph (.dm3, .dm4), .ser and .mrc. Of an HDF5 file
    ``FILE:/path/of/dataset`` names the dataset, else the only one of this shape is taken. The rows are in the order in
    which h5py and ncempy give them, (y, x) as numpy has it: row 0 of the array is row 0 of the frame, nothing is turned
    round. (A .ser file has its bottom row first; ncempy turns it round, as TIA shows it.)

    Pixels of another type are rounded to float32, the type that stempy computes in. (stempy itself refuses a mean in
    float64, as numpy gives it.)

    Returns
    -------
    (576, 576) float32, C order, detector counts (dark) or factors (gain). Axes of length 1 are dropped.

    Raises
    ------
    InputError
        The file is missing, cannot be read or has an unknown suffix; several datasets fit, or none; another shape, or a
        stack of frames; pixels that are no real numbers, not finite, beyond float32, or, in a gain, not above 0.
    """
    match = _FILE_AND_DATASET.fullmatch(str(path))
    file, dataset = (Path(match[1]), match[2]) if match else (path, None)
    try:
        return _cast(_read(file, dataset, kind), kind)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read(file: Path, dataset: str | None, kind: str) -> NDArray[Any]:
    if file.suffix.lower() not in _SUFFIXES:
        raise InputError(f"unknown suffix {file.suffix!r}; a {kind} reference is one of {', '.join(_SUFFIXES)}")
    try:
        file.open("rb").close()  # whether it can be opened at all, in the same words for all formats
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error
    try:
        # ncempy prints some of what it raises.
        with contextlib.redirect_stdout(io.StringIO()), _opened(file, dataset) as pixels:
            _check_form(pixels.shape, pixels.dtype, kind)
            return np.array(pixels[...]).reshape(SHAPE)
    except InputError:
        raise
    except Exception as error:  # whatever the readers make of a damaged file
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"no readable {file.suffix} file, or a damaged one: {why}") from error


@contextlib.contextmanager
def _opened(file: Path, dataset: str | None) -> Iterator[Any]:
    """Pixels with ``shape`` and ``dtype``, in formats that can have many not read yet."""
    match file.suffix.lower():
        case ".npy":
            yield np.lib.format.open_memmap(file, mode="r")
        case suffix if suffix in _HDF5:
            import h5py  # noqa: PLC0415  # most references are no HDF5

            with h5py.File(file, "r") as opened:
                yield _only_dataset(opened) if dataset is None else _named_dataset(opened, dataset)
        case ".dm3" | ".dm4":
            from ncempy.io import dm  # noqa: PLC0415  # a second of imports

            with dm.fileDM(file, on_memory=False) as opened:
                yield opened.getMemmap(0)  # a thumbnail before it does not count
        case ".ser":
            from ncempy.io import ser  # noqa: PLC0415

            with ser.fileSER(file) as opened:
                if opened.head["ValidNumberElements"] > 1:
                    raise InputError(_no_stack(opened.head["ValidNumberElements"]))
                yield opened.getDataset(0)[0]
        case ".mrc":
            from ncempy.io import mrc  # noqa: PLC0415

            with mrc.fileMRC(file) as opened:
                if opened.mrcType not in _MRC_MODES:
                    raise InputError(f"MRC mode {opened.mrcType}; {', '.join(map(str, _MRC_MODES))} can be read")
                yield opened.getMemmap()


def _datasets(file: h5py.File) -> dict[str, tuple[int, ...]]:
    """Shape of every dataset, by its path."""
    shapes: dict[str, tuple[int, ...]] = {}
    # Not by isinstance: h5py is imported where it is needed only. Groups have no shape.
    file.visititems(lambda name, node: shapes.update({f"/{name}": node.shape} if hasattr(node, "shape") else {}))
    return shapes


def _only_dataset(file: h5py.File) -> h5py.Dataset:
    shapes = _datasets(file)
    fitting = [name for name, shape in shapes.items() if _frame_shape(shape) == SHAPE]
    if len(fitting) == 1:
        return file[fitting[0]]
    stacks = [shape for shape in shapes.values() if _is_stack(shape)]
    if not fitting and len(stacks) == 1:
        raise InputError(_no_stack(_frames(stacks[0])))
    if not fitting:
        raise InputError(f"no dataset of shape {SHAPE}; there {_listed(shapes)}")
    raise InputError(
        f"{len(fitting)} datasets of shape {SHAPE}: {', '.join(fitting[:_LISTED])}; name one: FILE:{fitting[0]}"
    )


def _named_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    node = file.get(name)
    if not hasattr(node, "shape"):
        raise InputError(f"no dataset of that name; there {_listed(_datasets(file))}")
    return node


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    shown = [f"{name} {shape}" for name, shape in shapes.items()][:_LISTED]
    return f"are {len(shapes)}: {', '.join(shown)}" if shown else "is none"


def _frame_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape or () if length != 1)


def _is_stack(shape: tuple[int, ...]) -> bool:
    return len(_frame_shape(shape)) > len(SHAPE) and shape[-2:] == SHAPE


def _frames(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[:-2]))


def _no_stack(frames: int) -> str:
    return f"a stack of {frames} frames, expected one; average them first, raw files with: stemstream dark"


def _check_form(shape: tuple[int, ...], dtype: np.dtype[Any], kind: str) -> None:
    if _is_stack(shape):
        raise InputError(_no_stack(_frames(shape)))
    if _frame_shape(shape) != SHAPE:
        raise InputError(f"shape {shape}; a {kind} reference is one frame, {SHAPE} pixels (y, x)")
    if dtype.kind not in "iuf":
        raise InputError(f"pixels are {dtype}; a {kind} reference has integers or floating-point numbers")


def _cast(values: NDArray[Any], kind: str) -> NDArray[np.float32]:
    """Pixels as float32; InputError for the first one that is none, or, in a gain, not above 0."""
    _refuse(~np.isfinite(values), values, "expected a finite number; replace bad pixels, for example by their median")
    with np.errstate(over="ignore"):
        pixels = np.array(values, np.float32, order="C")
    _refuse(~np.isfinite(pixels), values, "beyond float32")
    if kind == "gain":
        _refuse(pixels <= 0, values, "expected a gain above 0; set bad pixels to 1")
        with np.errstate(over="ignore"):
            _refuse(~np.isfinite(1 / pixels), values, "1 by it is beyond float32; set bad pixels to 1")
    else:
        _refuse(np.abs(pixels) > _PIXEL_MAX, values, f"expected at most {_PIXEL_MAX} counts, as a pixel holds")
    return pixels


def _refuse(bad: NDArray[np.bool_], values: NDArray[Any], why: str) -> None:
    count = np.count_nonzero(bad)
    if count:
        y, x = np.unravel_index(np.argmax(bad), SHAPE)
        more = f" (the first of {count} such pixels)" if count > 1 else ""
        raise InputError(f"pixel y {y}, x {x} is {values[y, x]}{more}, {why}")


def store_reference(log: ScanLog, pixels: NDArray[np.float32]) -> str:
    """Store a reference, unless the scan log knows it; returns its SHA-256 (see `topics.reference.sha256_of`).

    Parameters
    ----------
    log
        Is read to its end; what is stored here is appended.
    pixels
        (576, 576) float32.

    Raises
    ------
    FaultError
        The broker does not acknowledge it.
    """
    sha256 = sha256_of(pixels)
    if sha256 not in log.catch_up().references:
        offset = _produce(log.bootstrap, sha256, reference.encode(pixels))
        log.append(ReferenceStored(sha256=sha256, offset=offset))
    return sha256


def fetch_reference(bootstrap: str, sha256: str, offset: int) -> NDArray[np.float32]:
    """Reference at an offset that the scan log names: (576, 576) float32, C order.

    Raises
    ------
    FaultError
        It is not there any more, is damaged or another one, or the broker does not answer.
    """
    try:
        pixels = reference.decode(_message_at(bootstrap, offset))
    except DecodeError as error:
        raise FaultError(f"{_place(offset)}: reference {sha256} is damaged: {error}") from error
    found = sha256_of(pixels)
    if found != sha256:
        raise FaultError(f"{_place(offset)}: expected reference {sha256}, found {found}")
    return pixels


def store_calibration(bootstrap: str, found: Calibration) -> int:
    """Store a calibration; returns its offset. FaultError if the broker does not acknowledge it."""
    return _produce(bootstrap, f"calibration/{found.ordinal}/{found.count}", found.encode())


def fetch_calibration(bootstrap: str, offset: int) -> Calibration:
    """Calibration at an offset that the scan log names.

    Raises
    ------
    FaultError
        It is not there any more, is damaged, or the broker does not answer.
    """
    try:
        return calibration.decode(_message_at(bootstrap, offset))
    except DecodeError as error:
        raise FaultError(f"{_place(offset)}: calibration is damaged: {error}") from error


def _place(offset: int) -> str:
    return f"{REFERENCES}[0] offset {offset}"


def _produce(bootstrap: str, key: str, value: bytes) -> int:
    """Write one message; its offset, once it is acknowledged."""
    answers: list[tuple[KafkaError | None, Message]] = []
    client = producer(bootstrap, "references")
    client.produce(REFERENCES, value, key, 0, on_delivery=lambda error, message: answers.append((error, message)))
    client.flush(3 * REQUEST_TIMEOUT_S)
    error, message = answers[0] if answers else (None, None)
    if error is not None or message is None:
        raise FaultError(f"{REFERENCES}[0] did not take {key}: {error.str() if error else 'no answer'}")
    return int(message.offset())  # type: ignore[arg-type]  # an acknowledged message has one


def _message_at(bootstrap: str, offset: int) -> bytes:
    """The message at this offset."""
    client = consumer(bootstrap, "references")
    try:
        low, end = partition_bounds(client, REFERENCES, 0)
        if not low <= offset < end:
            raise FaultError(
                f"{_place(offset)}: no message; there are offsets {low} to {end - 1}. Was the topic emptied?"
            )
        client.assign([TopicPartition(REFERENCES, 0, offset)])
        deadline = time.monotonic() + 3 * REQUEST_TIMEOUT_S
        while time.monotonic() < deadline:
            message = client.poll(0.1)
            if message is not None and raise_for(message):
                return message.value() or b""
    except KafkaException as error:
        raise FaultError(f"{_place(offset)}: {error.args[0].str()}") from error
    finally:
        client.close()
    raise FaultError(f"{_place(offset)}: no answer")
