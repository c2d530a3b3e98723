"""The counted file: stempy opens it, whatever the scan looks like, and no file is ever overwritten or torn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stempy.io import SparseArray

from service.counted_file import CountedFileWriter, Fields, annotate_file, publish_file, read_events, read_identity
from service.errors import InputError
from topics.geometry import ScanGeometry

METADATA: Fields = {
    "cluster_id": "cluster",
    "session": "default",
    "number": 12,
    "ordinal": 17,
    "count": 22,
    "account": "{}",
    "settings": {"background": 28.5, "engine": "fast"},
}


def geometry(width: int = 5, height: int = 3, per_position: int = 1, per_chunk: int = 4) -> ScanGeometry:
    return ScanGeometry(
        width=width, height=height, frames_per_position=per_position, frames_per_chunk=per_chunk, partitions=2
    )


def random_rows(frames: int, seed: int = 0, most: int = 9) -> list[list[int]]:
    """Electrons of each frame; some have none."""
    random = np.random.default_rng(seed)
    return [
        sorted(random.choice(576 * 576, random.integers(0, most + 1), replace=False).tolist()) for _ in range(frames)
    ]


def write(
    path: Path,
    scan: ScanGeometry,
    rows: list[list[int]],
    masks: list[int] | None = None,
    *,
    metadata: Fields = METADATA,
    chunks: list[int] | None = None,
) -> Path:
    """Write a file chunk by chunk; only these chunks if they are named."""
    writer = CountedFileWriter(path, scan)
    for c in range(scan.chunks) if chunks is None else chunks:
        first = c * scan.frames_per_chunk
        own = rows[first : first + scan.frames_in_chunk(c)]
        writer.write(
            first,
            np.array([index for row in own for index in row], np.uint32),
            np.cumsum([0, *(len(row) for row in own)]),
            np.array((masks or [0] * scan.frames)[first : first + len(own)], np.uint8),
        )
    writer.close(metadata)
    return path


def opened_by_stempy(path: Path) -> tuple[Any, list[list[int]]]:
    """The array as stempy opens it, and the electrons in the order of the frame numbers."""
    array = SparseArray.from_hdf5(str(path))
    return array, [electrons.tolist() for position in array.data for electrons in position]


@pytest.mark.parametrize("per_position", [1, 2, 3, 4])
@pytest.mark.parametrize(("width", "height"), [(5, 3), (3, 5), (1, 7), (7, 1), (1, 1)])
def test_stempy_opens_scans_of_any_shape(tmp_path: Path, width: int, height: int, per_position: int) -> None:
    scan = geometry(width, height, per_position)
    rows = random_rows(scan.frames)
    array, found = opened_by_stempy(write(tmp_path / "a.h5", scan, rows))
    assert array.scan_shape == (height, width)
    assert array.frame_shape == (576, 576)
    assert array.data.shape == (width * height, per_position)
    assert found == rows


def test_frame_k_of_a_position_is_the_slot_k_of_its_row_and_column(tmp_path: Path) -> None:
    scan = geometry(5, 3, 2)
    rows = [[frame] for frame in range(30)]
    array, _ = opened_by_stempy(write(tmp_path / "a.h5", scan, rows))
    for y in range(3):
        for x in range(5):
            for k in range(2):
                assert array.data[y * 5 + x, k].tolist() == [(y * 5 + x) * 2 + k]


def test_an_electron_is_found_in_its_row_and_column_of_the_frame(tmp_path: Path) -> None:
    array, _ = opened_by_stempy(write(tmp_path / "a.h5", geometry(1, 1), [[7 * 576 + 400]]))
    assert np.argwhere(array[0, 0]).tolist() == [[7, 400]]


@pytest.mark.parametrize("per_chunk", [1, 2, 4, 15, 40])
@pytest.mark.parametrize("electrons", [0, 1, 2, 4, 15])
def test_frames_may_all_hold_equally_many_electrons(tmp_path: Path, electrons: int, per_chunk: int) -> None:
    rows = [list(range(electrons * i, electrons * (i + 1))) for i in range(15)]
    path = write(tmp_path / "a.h5", geometry(per_chunk=per_chunk), rows)
    assert opened_by_stempy(path)[1] == rows


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 9)),
    most=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, size: tuple[int, int, int, int], most: int, seed: int
) -> None:
    scan = geometry(*size)
    rows = random_rows(scan.frames, seed, most)
    masks = np.random.default_rng(seed).integers(0, 16, scan.frames).tolist()
    path = write(tmp_path_factory.mktemp("files") / "a.h5", scan, rows, masks)
    assert opened_by_stempy(path)[1] == rows
    events = read_events(path)
    assert [events.indices[a:b].tolist() for a, b in zip(events.offsets, events.offsets[1:], strict=False)] == rows
    assert events.missing_sectors.tolist() == masks
    assert (events.scan_shape, events.frames_per_position) == ((scan.height, scan.width), scan.frames_per_position)
    assert (events.frame_shape, events.label) == ((576, 576), "default/12")


def test_chunks_may_be_written_in_any_order(tmp_path: Path) -> None:
    rows = random_rows(15)
    path = write(tmp_path / "a.h5", geometry(), rows, chunks=[2, 0, 3, 1])
    assert opened_by_stempy(path)[1] == rows


def test_frames_that_were_never_written_are_empty_and_miss_all_sectors(tmp_path: Path) -> None:
    rows = random_rows(15)
    path = write(tmp_path / "a.h5", geometry(), rows, chunks=[0, 2])
    expected = [row if i // 4 in (0, 2) else [] for i, row in enumerate(rows)]
    assert opened_by_stempy(path)[1] == expected
    assert read_events(path).missing_sectors.tolist() == [0 if i // 4 in (0, 2) else 15 for i in range(15)]


def test_metadata_arrive_in_stempy(tmp_path: Path) -> None:
    array, _ = opened_by_stempy(write(tmp_path / "a.h5", geometry(), random_rows(15)))
    assert array.metadata["stemstream"] == METADATA


def test_the_file_says_what_stempys_version_3_says(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "a.h5", geometry(), random_rows(15))) as file:
        assert file.attrs["version"] == 3
        frames, positions = file["electron_events/frames"], file["electron_events/scan_positions"]
        assert (frames.attrs["Nx"], frames.attrs["Ny"]) == (576, 576)
        assert h5py.check_vlen_dtype(frames.dtype) == np.uint32
        assert (positions.attrs["Nx"], positions.attrs["Ny"]) == (5, 3)
        assert positions[()].tolist() == list(range(15))


def test_a_file_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no folder"):
        CountedFileWriter(tmp_path / "no folder" / "a.h5", geometry())


@pytest.mark.parametrize("closed", [False, True])
def test_a_discarded_file_is_gone(tmp_path: Path, closed: bool) -> None:
    writer = CountedFileWriter(tmp_path / "a.h5", geometry())
    if closed:
        writer.close(METADATA)
    writer.discard()
    writer.discard()
    assert not list(tmp_path.iterdir())


# Its final name.


def partial(folder: Path, **changes: str | int | dict[str, str]) -> Path:
    return write(folder / ".partial", geometry(), random_rows(15), metadata={**METADATA, **changes})


def test_a_file_gets_the_name_that_was_wanted(tmp_path: Path) -> None:
    content = partial(tmp_path).read_bytes()
    assert publish_file(tmp_path / ".partial", tmp_path / "scan.h5") == tmp_path / "scan.h5"
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("scan.h5", content)]


def test_the_same_count_with_the_same_account_is_done(tmp_path: Path) -> None:
    publish_file(partial(tmp_path), tmp_path / "scan.h5")
    there = (tmp_path / "scan.h5").read_bytes()
    assert publish_file(partial(tmp_path), tmp_path / "scan.h5") == tmp_path / "scan.h5"
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("scan.h5", there)]


@pytest.mark.parametrize(
    "other", [{"cluster_id": "another"}, {"ordinal": 18}, {"count": 23}, {"account": '{"electrons":1}'}], ids=str
)
def test_another_count_gets_the_next_free_name(tmp_path: Path, other: dict[str, str | int]) -> None:
    publish_file(partial(tmp_path), tmp_path / "scan.h5")
    there = (tmp_path / "scan.h5").read_bytes()
    assert publish_file(partial(tmp_path, **other), tmp_path / "scan.h5").name == "scan-2.h5"
    assert publish_file(partial(tmp_path, session="x", count=99), tmp_path / "scan.h5").name == "scan-3.h5"
    assert publish_file(partial(tmp_path, **other), tmp_path / "scan.h5").name == "scan-2.h5"
    assert (tmp_path / "scan.h5").read_bytes() == there
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan-2.h5", "scan-3.h5", "scan.h5"]


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def text_file(path: Path) -> None:
    path.write_text("precious")


def foreign_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("metadata/stemstream")


def torn_hdf5(path: Path) -> None:
    whole = write(path, geometry(), random_rows(15)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [empty_file, text_file, foreign_hdf5, torn_hdf5, folder])
def test_what_is_none_of_ours_keeps_its_name(tmp_path: Path, make: Any) -> None:  # noqa: ANN401
    final = tmp_path / "scan.h5"
    make(final)
    before = final.read_bytes() if final.is_file() else None
    assert read_identity(final) is None
    assert publish_file(partial(tmp_path), final).name == "scan-2.h5"
    assert (final.read_bytes() if final.is_file() else None) == before


def test_the_identity_is_cluster_ordinal_count_and_account(tmp_path: Path) -> None:
    account = json.dumps({"electrons": 3})
    assert read_identity(partial(tmp_path, account=account)) == ("cluster", 17, 22, account)


@pytest.mark.parametrize("make", [empty_file, text_file, foreign_hdf5, torn_hdf5])
def test_reading_what_is_no_counted_file_is_an_error_that_names_it(tmp_path: Path, make: Any) -> None:  # noqa: ANN401
    make(tmp_path / "scan.h5")
    with pytest.raises(InputError, match=r"scan\.h5: no counted file"):
        read_events(tmp_path / "scan.h5")


# Annotations.


def finished(folder: Path) -> Path:
    return publish_file(partial(folder, annotations={"sample": "gold"}), folder / "scan.h5")


def noted(path: Path) -> dict[str, str]:
    with h5py.File(path) as file:
        return dict(file["metadata/stemstream/annotations"].attrs)


def test_annotations_replace_those_of_a_finished_file_and_nothing_else(tmp_path: Path) -> None:
    path = finished(tmp_path)
    rows, identity = opened_by_stempy(path)[1], read_identity(path)
    assert annotate_file(path, {"sample": "gold on carbon", "kV": "300"})
    assert noted(path) == {"sample": "gold on carbon", "kV": "300"}
    assert (opened_by_stempy(path)[1], read_identity(path)) == (rows, identity)
    assert list(tmp_path.iterdir()) == [path]


def test_all_annotations_of_a_file_can_be_removed(tmp_path: Path) -> None:
    path = finished(tmp_path)
    assert annotate_file(path, {})
    assert noted(path) == {}


def test_a_file_that_has_its_annotations_is_not_touched(tmp_path: Path) -> None:
    path = finished(tmp_path)
    before = path.stat()
    assert not annotate_file(path, {"sample": "gold"})
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_stays_as_it_was_when_annotating_fails(tmp_path: Path) -> None:
    path = finished(tmp_path)
    before = path.read_bytes()
    (tmp_path / ".scan.h5.annotated").mkdir()  # where the copy would go
    with pytest.raises(OSError, match="annotated"):
        annotate_file(path, {"sample": "silver"})
    assert path.read_bytes() == before
