"""No operation has an argument with the name of a global argument of pyinfra."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from pyinfra.api.arguments import all_global_arguments

import deploys.operations


def test_no_parameter_shadows_a_global_of_pyinfra() -> None:
    """pyinfra would use such an argument itself and not pass it to the operation."""
    reserved = {key for key, _ in all_global_arguments()} | {"name"}
    assert {"_sudo", "_stdin", "_if"} < reserved
    for module in pkgutil.iter_modules(deploys.operations.__path__, "deploys.operations."):
        for name, operation in inspect.getmembers(
            importlib.import_module(module.name), lambda one: hasattr(one, "_inner")
        ):
            assert not reserved & set(inspect.signature(operation._inner).parameters), f"{module.name}.{name}"
