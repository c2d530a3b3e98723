"""Write requirements.txt and requirements-dev.txt: every package of pyproject.toml and what it needs, with hashes.

``make lock`` runs it. Pins that are there stay as long as pyproject.toml allows them; ``make lock UPGRADE=1`` takes the
newest versions. setuptools is pinned as well, because `make setup` installs the checkout without build isolation.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Neither an index address nor a path of the machine that ran it may end up in the files.
OPTIONS = (
    "--quiet",
    "--generate-hashes",
    "--allow-unsafe",
    "--strip-extras",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-emit-trusted-host",
)


def lock(output: str, packages: list[str], *options: str) -> None:
    """Pin ``packages`` and all that they need in the file ``output``."""
    command = [sys.executable, "-m", "piptools", "compile", *OPTIONS, *options, f"--output-file={output}", "-"]
    environment = os.environ | {"CUSTOM_COMPILE_COMMAND": "make lock"}
    subprocess.run(command, cwd=ROOT, input="\n".join(packages), text=True, env=environment, check=True)
    file = ROOT / output
    file.write_text(file.read_text(encoding="utf-8").replace("-r -", "pyproject.toml"), encoding="utf-8")


def main(options: list[str]) -> None:
    """Lock what runs, then the same versions and the tools of development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    runtime = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    lock("requirements.txt", runtime, *options)
    lock(
        "requirements-dev.txt",
        [*runtime, *project["dependency-groups"]["dev"]],
        "--constraint=requirements.txt",
        *options,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
