"""Control: a laboratory as it is reached from another process; its circuits behind the usual port."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tieline.drivers.lab.wording import MOST_LINE_BYTES, SOCKET, Answer, Question, Seen
from tieline.model.circuit import Circuit, Receipt
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence
from tieline.ports import Applied, PortCount

PATIENCE_S: Final = 120.0  # for an answer: a proof takes seconds, and waits for those before it


class Laboratory:
    """The laboratory of a folder. One question at a time; every call opens a connection of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def ask(self, verb: str, **given: Any) -> Any:
        """One question. Raises TielineError, also when nobody keeps the laboratory."""
        handle = -1
        try:
            # By descriptor: the path of a folder may be longer than the address of a socket.
            handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            reader, writer = await asyncio.open_unix_connection(
                f"/proc/self/fd/{handle}/{SOCKET}", limit=MOST_LINE_BYTES
            )
        except OSError as error:
            raise TielineError(
                "not_found",
                f"no laboratory is kept in `{self.folder}`: {error.strerror}",
                hints=("tieline lab ls",),
            ) from None
        finally:
            if handle >= 0:
                os.close(handle)
        try:
            async with asyncio.timeout(PATIENCE_S):
                writer.write(msgspec.json.encode(Question(verb=verb, given=msgspec.to_builtins(given))) + b"\n")
                await writer.drain()
                line = await reader.readline()
        except TimeoutError:
            raise TielineError("timeout", f"the laboratory gave no answer for {PATIENCE_S:g} s", where=verb) from None
        except (ConnectionError, ValueError) as error:  # it ended, or said more than a line may hold
            raise TielineError("timeout", f"the laboratory in `{self.folder}` broke off: {error}") from None
        finally:
            writer.close()
        if not line:
            raise TielineError("timeout", f"the laboratory in `{self.folder}` ended before it answered")
        answer = msgspec.json.decode(line, type=Answer)
        if answer.error is not None:
            raise answer.error.raised()
        return answer.reply

    async def show(self) -> Seen:
        """Everything that is to be seen."""
        return msgspec.convert(await self.ask("show"), Seen)


class LabCircuits:
    """`tieline.ports.Circuits` of a laboratory."""

    name = "kernel"
    evidence = Evidence.MEASURED

    def __init__(self, laboratory: Laboratory) -> None:
        self.laboratory = laboratory

    async def apply(self, circuits: Sequence[Circuit]) -> Applied:
        """As `tieline.ports.Circuits`."""
        return msgspec.convert(await self.laboratory.ask("apply", circuits=tuple(circuits)), Applied)

    async def verify(self, circuit: Circuit, seq: int) -> Receipt:
        """As `tieline.ports.Circuits`."""
        return msgspec.convert(await self.laboratory.ask("verify", circuit=circuit.id, seq=seq), Receipt)

    async def counters(self) -> Sequence[PortCount]:
        """As `tieline.ports.Circuits`."""
        return msgspec.convert(await self.laboratory.ask("counters"), tuple[PortCount, ...])

    async def withdraw(self, circuit: str) -> None:
        """As `tieline.ports.Circuits`."""
        await self.laboratory.ask("withdraw", circuit=circuit)
