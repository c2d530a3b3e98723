"""The file way: raw files are written, stempy's multi-pass reader counts them on all cores, stempy writes HDF5.

Run as ``python -m benchmarks.peers.file_way RAW OUT``: prints one JSON object. Thresholds are those that stempy finds
in its default number of samples: fewer samples than in production, so it is faster here than there. Without a dark
reference, with which the reader can wait without end.
"""

import json
import sys
from pathlib import Path

import stempy.image
import stempy.io

from benchmarks.peers.stopwatch import Stopwatch

BLOCK_BYTES = 2**22
BACKGROUND_SIGMAS, XRAY_SIGMAS = 4.5, 175


def main(raw: Path, out: Path) -> None:
    watch = Stopwatch()
    files = write_again(sorted(raw.glob("*.data")), out)
    watch.lap("write")
    reader = stempy.io.reader([str(path) for path in files], version=5, backend="multi-pass")
    counted = stempy.image.electron_count(
        reader, background_threshold_n_sigma=BACKGROUND_SIGMAS, xray_threshold_n_sigma=XRAY_SIGMAS
    )
    watch.lap("count")
    counted.write_to_hdf5(str(out / "counted.h5"))
    watch.lap("hdf5")
    electrons = sum(len(frame) for frame in counted.data.ravel())
    print(json.dumps(watch.report(counted.data.size, electrons)))


def write_again(files: list[Path], out: Path) -> list[Path]:
    """Write what the files hold into other files: what a receiver of the camera would do.

    Those of the last run are overwritten in place: no memory has to be found for them, which can take long.
    """
    written = [out / path.name for path in files]
    for source, target in zip(files, written, strict=True):
        target.touch()
        with source.open("rb") as reading, target.open("r+b") as writing:
            while block := reading.read(BLOCK_BYTES):
                writing.write(block)
    return written


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
