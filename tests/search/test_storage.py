"""The database under the ledger: what is said of one that cannot serve."""

import pytest

from saddlepoint.errors import UserError
from saddlepoint.search.storage import open_storage


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:////absent/folder/x.db",
        "no url",
        "oracel://x/y",
        "postgresql+psycopg2://u:secret@127.0.0.1:1/x",
        "{file}",
    ],
)
def test_a_database_that_cannot_be_opened_is_the_users_error(tmp_path, address):
    (tmp_path / "notes.txt").write_text("not a database " * 100)
    with pytest.raises(UserError) as caught:
        open_storage(address.format(file=f"sqlite:///{tmp_path / 'notes.txt'}"))
    message = str(caught.value)
    assert message.startswith("ledger: ")
    assert "cannot be opened" in message
    assert "\n" not in message
    assert "secret" not in message


def test_a_database_without_its_driver_names_it():
    named = r"^ledger: mssql\+pymssql://u:\*\*\*@h/x needs a driver that is not installed "
    with pytest.raises(UserError, match=named):
        open_storage("mssql+pymssql://u:secret@h/x")
