"""The bot imports aiogram quickly. Each test starts a new process, because a process imports a module only once."""

import subprocess
import sys
from pathlib import Path

BOT = Path(__file__).parents[2] / "lab" / "bot"
IMPORT = "from marketplace_bot.aiogram_import import import_aiogram; import_aiogram()"
EXCHANGE = """
import json
from aiogram.methods.base import Response
from aiogram.types import Message, Update, User

person = {"id": 1, "is_bot": False, "first_name": "Ann"}
photo = {"file_id": "a", "file_unique_id": "b", "width": 1, "height": 1}
message = {"message_id": 1, "date": 1, "chat": {"id": 1, "type": "private"}, "from": person, "photo": [photo]}
press = {"id": "1", "from": person, "chat_instance": "1", "message": message}
update = Update.model_validate_json(json.dumps({"update_id": 7, "message": message, "callback_query": press}))
assert isinstance(update.callback_query.message.from_user, User)
assert update.message.answer("hello").chat_id == 1
sent = Response[Message].model_validate_json(json.dumps({"ok": True, "result": message}))
assert sent.result.photo[0].file_id == "a"
"""


def run(script: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", f"{IMPORT}\n{script}"], cwd=BOT, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def test_an_update_is_read_and_answered() -> None:
    run(EXCHANGE)


def test_unneeded_models_are_not_built() -> None:
    """Building aiogram's model `Game` would take two seconds."""
    said = run("from aiogram.types import Game, Message; print([t.__pydantic_complete__ for t in (Message, Game)])")
    assert said == "[True, False]\n"
