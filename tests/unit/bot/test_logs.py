"""The bot logs JSON without secrets."""

import json

from marketplace_bot.logs import JSONWithoutSecrets, cause
from sqlalchemy.exc import SQLAlchemyError


def test_a_secret_is_masked_everywhere() -> None:
    render = JSONWithoutSecrets(['p"ä\\ s', "1:token", ""])
    line = render(
        None,
        "info",
        {"event": 'said p"ä\\ s', "url": ["https://api/bot1:token/getMe"], "exception": ValueError("1:token")},
    )
    assert json.loads(line) == {"event": "said ***", "url": ["https://api/bot***/getMe"], "exception": "***"}


def test_only_errors_that_the_database_did_not_explain_have_a_traceback() -> None:
    unforeseen = ValueError("oh")
    assert cause(unforeseen) == {"error": "ValueError: oh", "exc_info": unforeseen}
    assert cause(SQLAlchemyError("gone")) == {"error": "SQLAlchemyError: gone", "exc_info": None}
