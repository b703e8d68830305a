"""Replies: the type of each command's answer, so that a stored answer comes back as the struct that it was."""

from __future__ import annotations

from typing import Any

import msgspec

from tieline.exchange import bookings as book
from tieline.exchange import commands as ask
from tieline.model.booking_api import CircuitView, NightView, ReceiptView, TransferView
from tieline.model.circuit import Circuit
from tieline.model.event import EquivocationSeen, RecordStored
from tieline.model.job import Job
from tieline.model.network_api import NetworkChangedView
from tieline.model.party import Site, Token
from tieline.model.peer import Peer, PinnedRoot
from tieline.model.plan import Quote
from tieline.model.project import Project
from tieline.model.tariff import Tariff
from tieline.model.transfer import Transfer

REPLIES: dict[type[ask.Command], Any] = {
    ask.CreateExchange: Token,
    ask.CreateToken: Token,
    ask.RevokeToken: Token,
    ask.StoreRecord: RecordStored | EquivocationSeen,
    ask.JoinSite: ask.Joined,
    ask.ChangeSite: Site,
    ask.SubmitJobs: tuple[Job, ...],
    ask.StopJob: Job,
    ask.AskQuote: Quote,
    ask.AcceptQuote: Job,
    ask.AskPeer: Peer,
    ask.ChangePeer: Peer,
    ask.ChangeRoot: PinnedRoot,
    ask.ChangeProject: Project,
    ask.ChangeTopology: NetworkChangedView,
    ask.ChangeLinks: NetworkChangedView,
    book.OrderTransfer: TransferView,
    book.CancelTransfer: Transfer,
    book.BookNight: NightView,
    book.OrderCircuit: CircuitView,
    book.ResizeCircuit: CircuitView,
    book.CancelCircuit: Circuit,
    book.TakeReceipt: ReceiptView,
    book.ChangeTariff: Tariff,
}
GROWING: frozenset[type] = frozenset(
    {
        ask.CreateToken,
        ask.StoreRecord,
        ask.JoinSite,
        ask.SubmitJobs,
        ask.AskQuote,
        ask.AcceptQuote,
        book.OrderTransfer,
        book.BookNight,
        book.OrderCircuit,
    }
)  # new work: refused first, when the disk or the queue runs full, so that what was acknowledged can end


class ReplyCodec:
    """Encodes answers to JSON and back, by the type of their command."""

    def __init__(self, types: dict[type[ask.Command], Any]) -> None:
        self._decoders = {command: msgspec.json.Decoder(reply) for command, reply in types.items()}
        self.encode = msgspec.json.Encoder().encode

    def key_of(self, command: ask.Command) -> str:
        """Where the answer to ``command`` is kept: its caller and the caller's key.

        Empty without a key, and for what needs none: questions, and reports that are fenced by their epoch.
        """
        return f"{command.actor.name} {command.key}" if command.key and type(command) in self._decoders else ""

    def decode(self, command: type, stored: bytes) -> Any:
        """The answer as it was given. Raises msgspec.DecodeError when another version stored it in another shape."""
        return self._decoders[command].decode(stored)
