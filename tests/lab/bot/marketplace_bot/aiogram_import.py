"""Imports aiogram in a third of its usual time, because each release and each restart waits for the import."""

import pydantic


def import_aiogram() -> None:
    """Import aiogram before any other module does.

    On import, aiogram builds a validator for each of its 400 types, which takes one CPU two seconds. A bot that
    receives updates and sends messages needs only three of these validators. Each validator includes those of the types
    to which it refers.
    """
    rebuild = vars(pydantic.BaseModel)["model_rebuild"]
    pydantic.BaseModel.model_rebuild = lambda **_: None  # type: ignore[method-assign]
    try:
        from aiogram import types  # noqa: PLC0415
        from aiogram.methods import SendMessage  # noqa: PLC0415
    finally:
        pydantic.BaseModel.model_rebuild = rebuild  # type: ignore[method-assign]
    for needed in (types.Update, types.Message, SendMessage):
        needed.model_rebuild(_types_namespace=vars(types))
