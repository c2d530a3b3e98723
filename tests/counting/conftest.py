import pytest

import counting


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    counting.warm_up()
