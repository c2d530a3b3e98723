"""The version that messages, files and metrics name."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("stemstream")
except PackageNotFoundError:  # run from a checkout that was not installed
    VERSION = "0+unknown"
