"""aiogram, imported in a third of its time: each release, and each restart, waits for that."""

import pydantic


def import_aiogram() -> None:
    """Import it before anything else does.

    As it is imported, it builds a validator for each of its 400 types, which takes one CPU two seconds. A bot that gets
    updates and sends messages needs three of them, and what these refer to is built within.
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
