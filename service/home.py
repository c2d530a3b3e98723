"""Where stemstream keeps what must outlive a command: the embedded broker's data, and what is running."""

import os
from pathlib import Path

import platformdirs


def home_dir() -> Path:
    """Return the folder named by STEMSTREAM_HOME, else the user's data folder. It need not exist yet."""
    named = os.environ.get("STEMSTREAM_HOME")
    return Path(named).expanduser().absolute() if named else platformdirs.user_data_path("stemstream")
