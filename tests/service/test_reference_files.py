"""Dark and gain references come from files of many formats, are checked, and are stored once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ncempy.io.emd import fileEMD
from numpy.typing import NDArray

from service import references
from service.errors import InputError
from service.references import read_reference, store_reference
from tests.service.memory_log import Log
from tests.service.microscope_files import write_dm3, write_dm4, write_mrc, write_ser
from topics import reference
from topics.scan_log import ReferenceStored

Pixels = NDArray[Any]


def write_npy(path: Path, pixels: Pixels) -> None:
    np.save(path, pixels)


def write_hdf5(path: Path, pixels: Pixels) -> None:
    """With other datasets around it, and the wanted one twice under a link."""
    with h5py.File(path, "w") as file:
        file["entry/dark"] = pixels
        file["entry/mask"] = np.zeros((10, 20))
        file["entry/exposure"] = 0.5
        file["same"] = h5py.SoftLink("/entry/dark")


def write_emd(path: Path, pixels: Pixels) -> None:
    axes = [(np.arange(length), f"axis {n}", "[px]") for n, length in enumerate(pixels.shape)]
    with fileEMD(path, readonly=False) as file:
        file.put_emdgroup("dark", pixels, axes)


WRITERS: dict[str, Callable[[Path, Pixels], None]] = {
    ".npy": write_npy,
    ".h5": write_hdf5,
    ".hdf5": write_hdf5,
    ".emd": write_emd,
    ".dm3": write_dm3,
    ".dm4": write_dm4,
    ".ser": write_ser,
    ".mrc": write_mrc,
}
every_format = pytest.mark.parametrize("suffix", WRITERS)


def pixels_of(dtype: str = "float32") -> Pixels:
    """Another value at each place, so that nothing can be turned round unnoticed; float32 holds them all."""
    return (np.arange(576 * 576) / (1 if dtype == "int32" else 8)).reshape(576, 576).astype(dtype)


def written(folder: Path, pixels: Pixels, suffix: str = ".npy") -> Path:
    path = folder / f"reference{suffix}"
    WRITERS[suffix](path, pixels)
    return path


def refusal(path: Path, kind: Any = "dark") -> str:  # noqa: ANN401
    """The one line that says why a file is refused, without the file's name, which it begins with."""
    with pytest.raises(InputError) as refused:
        read_reference(path, kind)
    text = str(refused.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


# What is read.


@every_format
def test_every_format_gives_the_pixels_in_the_order_in_which_they_were_written(tmp_path: Path, suffix: str) -> None:
    read = read_reference(written(tmp_path, pixels_of(), suffix), "dark")
    np.testing.assert_array_equal(read, pixels_of())
    assert read.dtype == np.float32
    assert read.flags.c_contiguous


@every_format
def test_every_format_may_hold_integers(tmp_path: Path, suffix: str) -> None:
    pixels = pixels_of("uint16")
    np.testing.assert_array_equal(read_reference(written(tmp_path, pixels, suffix), "dark"), pixels)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint64", "float16", "float64", "longdouble", ">f4", ">i2"])
def test_other_numbers_become_float32_when_none_of_them_changes(tmp_path: Path, dtype: str) -> None:
    pixels = np.ones((576, 576), dtype)
    pixels[5, 6] = 100
    read = read_reference(written(tmp_path, pixels), "gain")
    np.testing.assert_array_equal(read, pixels.astype("f8"))
    assert read.dtype == np.float32


def test_columns_first_in_memory_is_no_other_frame(tmp_path: Path) -> None:
    read = read_reference(written(tmp_path, np.asfortranarray(pixels_of())), "dark")
    np.testing.assert_array_equal(read, pixels_of())
    assert read.flags.c_contiguous


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".emd", ".mrc", ".ser"])
def test_an_axis_of_length_one_is_dropped(tmp_path: Path, suffix: str) -> None:
    read = read_reference(written(tmp_path, pixels_of()[np.newaxis], suffix), "dark")
    np.testing.assert_array_equal(read, pixels_of())


def test_what_was_read_does_not_hang_on_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, pixels_of())
    read = read_reference(path, "dark")
    path.write_bytes(bytes(path.stat().st_size))
    np.testing.assert_array_equal(read, pixels_of())


def test_the_case_of_the_suffix_does_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path, pixels_of(), ".dm4").rename(tmp_path / "DARK.DM4")
    np.testing.assert_array_equal(read_reference(path, "dark"), pixels_of())


def test_a_dark_reference_may_be_negative(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_reference(written(tmp_path, -pixels_of()), "dark"), -pixels_of())


# HDF5.


def write_two(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["a/dark"], file["b/gain"], file["stack"] = pixels_of(), np.ones((576, 576)), np.ones((2, 576, 576))
    return path


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".emd", ".H5"])
def test_a_dataset_may_be_named_behind_the_file(tmp_path: Path, suffix: str) -> None:
    path = write_two(tmp_path / f"two{suffix}")
    np.testing.assert_array_equal(read_reference(Path(f"{path}:/a/dark"), "dark"), pixels_of())
    np.testing.assert_array_equal(read_reference(Path(f"{path}:/b/gain"), "gain"), 1)


def test_of_several_datasets_that_fit_none_is_chosen(tmp_path: Path) -> None:
    text = refusal(write_two(tmp_path / "two.h5"))
    assert text == "2 datasets of shape (576, 576): /a/dark, /b/gain; name one: FILE:/a/dark"


@pytest.mark.parametrize("name", ["/nothing", "/a", "/a/dark/deeper"])
def test_a_name_that_is_no_dataset_is_refused_with_those_that_are(tmp_path: Path, name: str) -> None:
    text = refusal(Path(f"{write_two(tmp_path / 'two.h5')}:{name}"))
    assert text.startswith("no dataset of that name; there are 3: /a/dark (576, 576), /b/gain (576, 576), /stack (2, ")


def test_a_named_dataset_is_checked_as_a_file_is(tmp_path: Path) -> None:
    assert refusal(Path(f"{write_two(tmp_path / 'two.h5')}:/stack")).startswith("a stack of 2 frames")


def test_datasets_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for n in range(12):
            file[f"{n:02}"] = np.zeros((n, 3))
        file["empty"] = h5py.Empty("f4")
    text = refusal(tmp_path / "a.h5")
    assert text.startswith("no dataset of shape (576, 576); there are 13: /00 (0, 3), /01 (1, 3), ")
    assert text.endswith("/09 (9, 3)")


def test_a_file_without_datasets_is_refused(tmp_path: Path) -> None:
    h5py.File(tmp_path / "a.h5", "w").close()
    assert refusal(tmp_path / "a.h5") == "no dataset of shape (576, 576); there is none"


# What is refused.


@every_format
def test_a_stack_is_refused_with_what_makes_one_frame_of_it(tmp_path: Path, suffix: str) -> None:
    text = refusal(written(tmp_path, np.stack([pixels_of()] * 3), suffix))
    assert text == "a stack of 3 frames, expected one; average them first, raw files with: stemstream dark"


@every_format
def test_another_shape_is_refused(tmp_path: Path, suffix: str) -> None:
    text = refusal(written(tmp_path, pixels_of()[:, :288], suffix))
    assert "(576, 288)" in text or "(1, 576, 288)" in text
    assert "(576, 576)" in text


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".dm3", ".ser"])
def test_complex_pixels_are_refused(tmp_path: Path, suffix: str) -> None:
    text = refusal(written(tmp_path, pixels_of("complex64"), suffix))
    assert text == "pixels are complex64; a dark reference has integers or floating-point numbers"


def test_an_mrc_file_of_complex_pixels_is_not_read_as_something_else(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, pixels_of("complex64"), ".mrc")) == "MRC mode 4; 0, 1, 2, 6 can be read"


@pytest.mark.parametrize("dtype", ["bool", "S4", "datetime64[s]", [("a", "f4")]])
def test_pixels_that_are_no_numbers_are_refused(tmp_path: Path, dtype: Any) -> None:  # noqa: ANN401
    assert refusal(written(tmp_path, np.zeros((576, 576), dtype))).startswith("pixels are ")


class Exploding:
    """Nobody may unpickle it."""

    def __reduce__(self) -> Any:  # noqa: ANN401
        return pytest.fail, ("a pickle was run",)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    path = written(tmp_path, np.full((576, 576), Exploding()))
    assert refusal(path).startswith("no readable .npy file")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_pixel_that_is_no_finite_number_is_refused_with_its_place(tmp_path: Path, value: float, dtype: str) -> None:
    pixels = pixels_of(dtype)
    pixels[3, 7] = value
    text = refusal(written(tmp_path, pixels))
    assert text.startswith(f"pixel y 3, x 7 is {value}, expected a finite number")


def test_of_many_bad_pixels_the_first_is_named_and_all_are_counted(tmp_path: Path) -> None:
    pixels = pixels_of()
    pixels[[9, 200, 3], [1, 2, 575]] = np.nan
    assert refusal(written(tmp_path, pixels)).startswith("pixel y 3, x 575 is nan (the first of 3 such pixels), ")


@pytest.mark.parametrize("value", [1e39, -1e39, 1.7e308])
def test_a_number_beyond_float32_is_refused_with_its_place(tmp_path: Path, value: float) -> None:
    pixels = pixels_of("float64")
    pixels[575, 0] = value
    assert refusal(written(tmp_path, pixels)) == f"pixel y 575, x 0 is {value}, beyond float32"


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float64", 0.1), ("int32", 2**24 + 1), ("uint32", 2**32 - 1), ("int64", 2**53 + 1), ("uint64", 2**64 - 1)],
)
def test_a_number_that_float32_cannot_hold_is_rounded(tmp_path: Path, dtype: str, value: Any) -> None:  # noqa: ANN401
    pixels = np.ones((576, 576), dtype)
    pixels[1, 2] = value
    read = read_reference(written(tmp_path, pixels), "gain")
    assert read.dtype == np.float32
    assert read[1, 2] == np.float32(value)
    assert read[1, 3] == 1


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0])
def test_a_gain_must_be_above_zero(tmp_path: Path, value: float) -> None:
    pixels = np.ones((576, 576), np.float32)
    pixels[10, 20] = value
    assert refusal(written(tmp_path, pixels), "gain").startswith(
        f"pixel y 10, x 20 is {value}, expected a gain above 0"
    )


# Files that are none.


@every_format
def test_a_missing_file_is_refused(tmp_path: Path, suffix: str) -> None:
    assert refusal(tmp_path / f"no{suffix}") == "cannot be read: No such file or directory"


def test_a_missing_file_with_a_dataset_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.h5:/dark") == "cannot be read: No such file or directory"


@every_format
def test_a_folder_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"folder{suffix}").mkdir()
    assert refusal(tmp_path / f"folder{suffix}") == "cannot be read: Is a directory"


@pytest.mark.parametrize("name", ["dark", "dark.txt", "dark.npz", "dark.npy:/dark", "dark.h5.gz"])
def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    (tmp_path / name.partition(":")[0]).write_bytes(b"")
    text = refusal(tmp_path / name)
    assert text.startswith("unknown suffix '")
    assert ".npy, .h5, .hdf5, .emd, .dm3, .dm4, .ser, .mrc" in text


@every_format
@pytest.mark.parametrize("content", [b"", b"\0", b"no reference " * 1000, bytes(2000)], ids=lambda c: f"{len(c)} bytes")
def test_a_file_of_another_format_is_refused(
    tmp_path: Path, suffix: str, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"reference{suffix}"
    path.write_bytes(content)
    refusal(path)
    assert capfd.readouterr() == ("", "")


@every_format
@pytest.mark.parametrize("part", [0.001, 0.5, 0.99])
def test_a_file_cut_short_is_refused(
    tmp_path: Path, suffix: str, part: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, pixels_of(), suffix)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    assert refusal(path).startswith(f"no readable {suffix} file, or a damaged one: ")
    assert capfd.readouterr() == ("", "")


def test_a_reader_that_says_nothing_is_named_by_its_error(tmp_path: Path) -> None:
    path = written(tmp_path, pixels_of(), ".dm3")
    path.write_bytes(path.read_bytes().replace(b"%%%%", b"%%%x"))
    assert refusal(path) == "no readable .dm3 file, or a damaged one: AssertionError"


# Stored once.


@pytest.fixture
def produced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """Keys and messages that went to the topic; the first lies at offset 100."""
    messages: list[tuple[str, bytes]] = []

    def produce(_bootstrap: str, key: str, value: bytes) -> int:
        messages.append((key, value))
        return 99 + len(messages)

    monkeypatch.setattr(references, "_produce", produce)
    return messages


class BrokerLog(Log):
    bootstrap = "nowhere:1"


def test_a_reference_is_stored_and_the_scan_log_says_where(produced: list[tuple[str, bytes]]) -> None:
    log, pixels = BrokerLog(), pixels_of()
    sha256 = store_reference(log, pixels)  # type: ignore[arg-type]
    assert sha256 == reference.sha256_of(pixels)
    assert produced == [(sha256, reference.encode(pixels))]
    assert [record for _, _, record in log.records] == [ReferenceStored(sha256=sha256, offset=100)]


def test_a_reference_that_the_scan_log_knows_is_not_stored_again(produced: list[tuple[str, bytes]]) -> None:
    log = BrokerLog()
    log.append(ReferenceStored(sha256=reference.sha256_of(pixels_of()), offset=7))
    assert store_reference(log, pixels_of()) == reference.sha256_of(pixels_of())  # type: ignore[arg-type]
    assert not produced
    assert len(log.records) == 1


def test_another_reference_is_stored_beside_it(produced: list[tuple[str, bytes]]) -> None:
    log = BrokerLog()
    hashes = [store_reference(log, pixels_of() + shift) for shift in (0, 1, 0)]  # type: ignore[arg-type]
    assert [key for key, _ in produced] == hashes[:2]
    assert log.catalogue.references == {hashes[0]: 100, hashes[1]: 101}


def test_a_dark_that_no_pixel_could_hold_is_refused(tmp_path: Path) -> None:
    pixels = np.zeros((576, 576), np.float32)
    pixels[3, 4] = -65_536
    assert refusal(written(tmp_path, pixels)).startswith("pixel y 3, x 4 is -65536.0, expected at most 65535 counts")


def test_a_gain_that_cannot_be_inverted_is_refused(tmp_path: Path) -> None:
    pixels = np.ones((576, 576), np.float32)
    pixels[3, 4] = 1e-42
    assert "1 by it is beyond float32" in refusal(written(tmp_path, pixels), "gain")
