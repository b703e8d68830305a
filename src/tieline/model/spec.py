"""What a record of each kind says: one struct per kind, validated when the record is stored.

``evidence`` maps a field of the same struct to what it rests on; a field that is not named there is declared 申报.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from tieline.model.quantity import MAX_INTEGER

Integer = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
MicroCny = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
Word = Annotated[str, msgspec.Meta(max_length=64, pattern=r"\A[a-z0-9][a-z0-9._-]*\Z")]
OptionalWord = Annotated[str, msgspec.Meta(max_length=64, pattern=r"\A([a-z0-9][a-z0-9._-]*)?\Z")]
Title = Annotated[str, msgspec.Meta(max_length=400)]
Text = Annotated[str, msgspec.Meta(max_length=4_000)]
Expression = Annotated[str, msgspec.Meta(max_length=4_000)]


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What every kind may say."""

    title: Title = ""
    description: Text = ""
    tags: Annotated[tuple[Title, ...], msgspec.Meta(max_length=64)] = ()
    labels: Annotated[dict[str, Title], msgspec.Meta(max_length=64)] = {}
    evidence: Annotated[dict[str, str], msgspec.Meta(max_length=64)] = {}


class SiteSpec(Spec, frozen=True, kw_only=True):
    """A place with compute under one owner."""

    tier: Annotated[str, msgspec.Meta(pattern=r"\A(hub|region|edge)\Z")] = "edge"
    region: OptionalWord = ""
    latitude_udeg: Annotated[int, msgspec.Meta(ge=-90_000_000, le=90_000_000)] | None = None
    longitude_udeg: Annotated[int, msgspec.Meta(ge=-180_000_000, le=180_000_000)] | None = None
    public: str = ""  # Ed25519 key of the site process, base64url
    sealing: str = ""  # X25519 key that secrets are sealed to, base64url
    door: str = ""  # URL of the authenticated echo and chunk port, where the owner opened one
    relay: bool = True  # others are let to that port by the relay too; also where no door is open
    declared_by: str = ""  # who fronts for machines that install nothing
    readings: dict[str, Integer] = {}  # of the site's own probes, unit last in the name
    protocol: Integer = 1


class PoolSpec(Spec, frozen=True, kw_only=True):
    """Same-kind accelerators (or plain cores) of one site: what is placed on."""

    site: str = ""
    access: Annotated[str, msgspec.Meta(pattern=r"\A(public|partner|private)\Z")] = "public"
    compute_class: Annotated[str, msgspec.Meta(pattern=r"\A(general|ai|super)\Z")] = "general"
    architecture: OptionalWord = ""
    accelerator: OptionalWord = ""  # kind such as a100, ascend-910b; empty: cores are sold
    vendor: OptionalWord = ""
    accelerator_count: Count = 0
    accelerator_memory_bytes: Bytes = 0
    core_count: Count = 0
    memory_bytes: Bytes = 0
    disk_bytes: Bytes = 0
    price_micro_cny_per_accelerator_hour: MicroCny = 0  # per core-hour where there is no accelerator
    energy: OptionalWord = ""
    policy: Expression = ""
    partners: Annotated[tuple[str, ...], msgspec.Meta(max_length=1_000)] = ()
    engines: Annotated[tuple[Word, ...], msgspec.Meta(max_length=16)] = ("process",)
    networks: Annotated[tuple[Word, ...], msgspec.Meta(max_length=4)] = ("host",)
    sandbox: OptionalWord = ""  # bubblewrap, container or nothing
    is_emulated: bool = False  # the accelerators are stand-ins


class DataPlace(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where a copy of the bytes can be had. A record is public: no login and no signature stands in it."""

    # http:// and https://, s3://BUCKET/KEY, file:///PATH at `site`, door:SITE#SHA256, blob:SHA256
    url: Annotated[str, msgspec.Meta(max_length=2_000, pattern=r"\A(https?://|s3://|file:///|door:|blob:)[!-~]+\Z")]
    site: Annotated[str, msgspec.Meta(max_length=200)] = ""  # beside which it is; empty: beside none


class DatasetSpec(Spec, frozen=True, kw_only=True):
    """Bytes that work reads: where they are, how many, and how far they may travel."""

    size_bytes: Bytes = 0
    sha256: str = ""
    sites: tuple[str, ...] = ()  # identifiers of sites that hold a copy
    places: Annotated[tuple[DataPlace, ...], msgspec.Meta(max_length=16)] = ()  # a site lays the bytes from these
    residency: Annotated[str, msgspec.Meta(pattern=r"\A(anywhere|site|owner|exchange)\Z")] = "anywhere"
    data_class: OptionalWord = ""
    licence: Title = ""
    source: Title = ""
    media_type: Title = ""

    def __post_init__(self) -> None:
        """Bytes that are fetched from somewhere must be known by their hash and counted before. Raises ValueError."""
        if self.places and not (self.size_bytes and re.fullmatch(r"[0-9a-f]{64}", self.sha256)):
            raise ValueError("`places` need `size_bytes` and the `sha256` of the bytes")
        for place in self.places:
            if place.url.startswith("file:") and not place.site:
                raise ValueError(f"`{place.url[:100]}` is a file of which site? state the `site` of the place")

    @property
    def fetched(self) -> tuple[DataPlace, ...]:
        """The places that can be read from elsewhere: a file is seen at its own site alone."""
        return tuple(place for place in self.places if not place.url.startswith("file:"))

    @property
    def copies(self) -> tuple[str, ...]:
        """The sites that hold a copy, those of places among them."""
        return tuple(dict.fromkeys([*self.sites, *(place.site for place in self.places if place.site)]))


class ModelSpec(Spec, frozen=True, kw_only=True):
    """A trained model: what it is, where its bytes are, and how good it was seen to be."""

    size_bytes: Bytes = 0
    sha256: str = ""
    sites: tuple[str, ...] = ()
    task: Title = ""
    framework: Title = ""
    licence: Title = ""
    metrics_millionths: dict[str, Integer] = {}  # accuracy 0.97 is 970000


class AgentSpec(Spec, frozen=True, kw_only=True):
    """An agent 智能体: what it can do and where it answers."""

    url: Title = ""
    protocols: tuple[Title, ...] = ()
    skills: tuple[Title, ...] = ()
    version: Title = ""


class LinkSpec(Spec, frozen=True, kw_only=True):
    """One hop between two sites."""

    ends: tuple[str, ...] = ()
    rate_bps: Bytes = 0
    rtt_us: Bytes = 0


class PartySpec(Spec, frozen=True, kw_only=True):
    """A party 主体 that is no prefix owner: a user, an app, an endpoint."""

    url: Title = ""
    public: str = ""
    properties: dict[str, Any] = {}


class AnnotationSpec(Spec, frozen=True, kw_only=True):
    """What somebody else says of a subject: admission, probe result, grade. Joined when read, never merged."""

    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]  # identifier
    says: Word  # admission, probe, grade, quarantine ...
    subject_sha256: Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{64})?\Z")] = ""  # of one revision; empty: of any
    scheme: Title = ""  # by whose scale, such as `assurance`
    value: Title = ""  # on that scale
    readings: Annotated[dict[str, Integer], msgspec.Meta(max_length=64)] = {}  # unit last in the name
    report_sha256: Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{64})?\Z")] = ""


class PageDigest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One page of a checkpoint: NDJSON of ``count`` envelopes in order of identifier, from ``first`` on."""

    first: Annotated[str, msgspec.Meta(min_length=3, max_length=200)]  # `<kind>/<name>`
    count: Annotated[int, msgspec.Meta(ge=1, le=2_000)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]  # of the page's bytes


class CheckpointSpec(Spec, frozen=True, kw_only=True):
    """The owner's signed list of digests of its own records, so that a whole page is verified by one signature."""

    at: Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)] = 0  # seconds since the epoch
    count: Count = 0  # records in all pages
    pages: Annotated[tuple[PageDigest, ...], msgspec.Meta(max_length=1_000)] = ()
