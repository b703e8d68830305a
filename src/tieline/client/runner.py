"""What runs at the site for one call: read `call.pkl`, call it, write `result.json` (and `result.pkl` if not data).

It is sent as a file and needs the standard library and cloudpickle. ``argv[1]``: major and minor version of the Python
that pickled the call.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any


def main(version: str) -> None:
    """Make the call and write what came of it; what the function prints is the job's output."""
    try:
        call = read_call(version)
    except Exception as error:  # noqa: BLE001 - whatever hinders the call is the caller's answer
        write({"error": described(error, "")})
        return
    try:
        function, args, kwargs = call
        value = function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - the caller's future raises it
        text = "".join(traceback.format_exception(type(error), error, _below(error)))
        write({"error": described(error, text)}, error)
        return
    answer(value)


def read_call(version: str) -> Any:
    """The function with its arguments. Raises RuntimeError with what is missing here."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if here != version:
        raise RuntimeError(
            f"the function was pickled by Python {version}, this site runs {here}: name another interpreter in the "
            "environment variable TIELINE_PYTHON, or an image"
        )
    try:
        import cloudpickle
    except ImportError:
        raise RuntimeError("cloudpickle is not installed at this site") from None
    with open("call.pkl", "rb") as file:
        return cloudpickle.load(file)


def answer(value: Any) -> None:
    """Write the value: as data where it is data, else as a pickle that the caller may refuse."""
    import data  # type: ignore[import-not-found]  # beside this file, at the site

    try:
        content = '{"value": ' + data.dumps(value) + "}"
    except (TypeError, ValueError, RecursionError):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        pickled(value)
        write({"pickle": kind})
        return
    Path("result.json").write_text(content, encoding="utf-8")


def described(error: BaseException, text: str) -> dict[str, Any]:
    """An exception as data."""
    import data

    try:
        args = data.dumps(list(error.args))
    except (TypeError, ValueError, RecursionError):
        args = ""
    kind = type(error)
    return {
        "module": kind.__module__,
        "name": kind.__qualname__,
        "message": str(error),
        "args": args,
        "traceback": text,
    }


def pickled(value: Any) -> None:
    """Leave the value as a pickle; nothing where it cannot be pickled."""
    import cloudpickle

    with open("result.pkl", "wb") as file:
        cloudpickle.dump(value, file)


def write(result: dict[str, Any], error: BaseException | None = None) -> None:
    """Leave the result; an exception of the caller's own classes also as a pickle."""
    if error is not None and type(error).__module__ != "builtins":
        try:
            pickled(error)
        except Exception:  # noqa: BLE001 - then it is told by its name
            Path("result.pkl").unlink(missing_ok=True)
    Path("result.json").write_text(json.dumps(result), encoding="utf-8")


def _below(error: BaseException) -> Any:
    """The traceback without this file's own frame."""
    return error.__traceback__.tb_next if error.__traceback__ is not None else None


if __name__ == "__main__":
    main(sys.argv[1])
