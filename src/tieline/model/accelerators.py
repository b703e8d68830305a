"""Kinds of accelerator 加速卡: one row each, and one spelling for the many that people, drivers and peers use.

A kind is a word of a pool's record and of a task's demand. Any word is allowed: this table only says which spellings
mean the same, and what is meant by a name that it does not know. Memory is the vendor's published figure for the
smallest variant that carries the name, 1 GB = 10^9 bytes; 0 where the vendor publishes none. It serves as a hint: what
a pool offers is what its record says.
"""

# ruff: noqa: E501 - one row per line reads as the table that it is

from __future__ import annotations

import re
from typing import NamedTuple

GB = 10**9
MAX_NAME = 64
GROUPS = ("any", "gpu", "npu")  # words that a demand may say instead of a kind


class Accelerator(NamedTuple):
    """One kind. ``family`` is the vendor's own word: gpu, npu, tpu, dcu, mlu, xpu, gcu or ppu."""

    name: str
    vendor: str
    family: str
    memory_bytes: int
    is_domestic: bool
    aliases: tuple[str, ...] = ()


class Named(NamedTuple):
    """What a spelling means: the kind, the memory that it states (0: none), and whether the kind is known."""

    kind: str
    memory_bytes: int = 0
    is_known: bool = False


def _rows(vendor: str, family: str, is_domestic: bool, *kinds: tuple[str, int, str]) -> tuple[Accelerator, ...]:
    return tuple(
        Accelerator(name, vendor, family, memory_gb * GB, is_domestic, tuple(aliases.split()))
        for name, memory_gb, aliases in kinds
    )


ACCELERATORS: tuple[Accelerator, ...] = (
    *_rows(
        "nvidia", "gpu", False,
        ("k80", 12, ""), ("p4", 8, ""), ("p40", 24, ""), ("p100", 16, ""), ("v100", 16, "v100s"), ("t4", 16, "t4g"),
        ("a2", 16, ""), ("a10", 24, ""), ("a10g", 24, ""), ("a16", 16, ""), ("a30", 24, ""), ("a40", 48, ""),
        ("a100", 40, ""), ("a800", 40, ""), ("l4", 24, ""), ("l20", 48, ""), ("l40", 48, ""), ("l40s", 48, ""),
        ("h20", 96, ""), ("h100", 80, ""), ("h800", 80, ""), ("h200", 141, ""), ("gh200", 96, ""),
        ("b200", 180, ""), ("gb200", 186, ""), ("b300", 288, ""), ("gb300", 288, ""),
        ("rtx-a4000", 16, "a4000"), ("rtx-a5000", 24, "a5000"), ("rtx-a6000", 48, "a6000"),
        ("rtx-2080ti", 11, "2080ti"), ("rtx-3080", 10, "3080"), ("rtx-3090", 24, "3090 rtx3090ti 3090ti"),
        ("rtx-4080", 16, "4080"), ("rtx-4090", 24, "4090"), ("rtx-4090d", 24, "4090d"), ("rtx-5090", 32, "5090"),
        ("rtx-6000-ada", 48, "rtx6000adageneration 6000ada"),
        ("rtx-pro-6000", 96, "rtxpro6000blackwell rtxpro6000blackwellserveredition"),
    ),
    *_rows(
        "amd", "gpu", False,
        ("mi100", 32, ""), ("mi210", 64, ""), ("mi250", 128, ""), ("mi250x", 128, ""), ("mi300a", 128, ""),
        ("mi300x", 192, "mi300"), ("mi308x", 192, ""), ("mi325x", 256, ""), ("mi350x", 288, ""), ("mi355x", 288, ""),
    ),
    *_rows("intel", "gpu", False, ("gaudi2", 96, "hl225"), ("gaudi3", 128, "hl325"), ("max-1550", 128, "gpumax1550")),
    *_rows("aws", "npu", False, ("inferentia2", 32, "inferentia inf2"), ("trainium", 32, "trn1"), ("trainium2", 96, "trn2")),
    *_rows(
        "google", "tpu", False,
        ("tpu-v2", 16, ""), ("tpu-v3", 32, ""), ("tpu-v4", 32, ""), ("tpu-v5e", 16, "tpuv5litepod v5litepod"),
        ("tpu-v5p", 95, ""), ("tpu-v6e", 32, "trillium"), ("tpu-v7", 192, "ironwood tpuv7x"),
    ),
    *_rows(
        "huawei", "npu", True,
        ("ascend-310", 8, "昇腾310"), ("ascend-310p", 24, "昇腾310p 310p 310p3"), ("ascend-910", 32, "昇腾910 910a ascend910a"),
        ("ascend-910b", 32, "昇腾910b 910b 910b1 910b2 910b3 910b4 ascend910b1 ascend910b2 ascend910b3 ascend910b4"),
        ("ascend-910c", 128, "昇腾910c 910c ascend91093"), ("ascend-950", 0, "昇腾950 ascend950pr"),
    ),
    *_rows(
        "cambricon", "mlu", True,
        ("mlu270", 16, "思元270"), ("mlu290", 32, "思元290"), ("mlu370", 24, "思元370 mlu370s4 mlu370x4 mlu370x8"),
        ("mlu590", 80, "思元590"), ("mlu690", 0, "思元690"),
    ),
    *_rows(
        "hygon", "dcu", True,
        ("dcu-z100", 16, "z100 z100l dcuz100l"), ("dcu-k100", 64, "k100dcu"), ("dcu-k100-ai", 64, "k100ai"),
        ("dcu-bw1000", 64, "bw1000"),
    ),
    *_rows(
        "moore-threads", "gpu", True,
        ("mtt-s80", 16, "s80"), ("mtt-s3000", 32, "s3000"), ("mtt-s4000", 48, "s4000 摩尔线程s4000"), ("mtt-s5000", 80, "s5000"),
    ),
    *_rows(
        "metax", "gpu", True,
        ("metax-n100", 16, "曦思n100"), ("metax-c500", 64, "c500 曦云c500"), ("metax-c550", 64, "c550 曦云c550"),
        ("metax-c600", 144, "c600 曦云c600"),
    ),
    *_rows(
        "kunlunxin", "xpu", True,
        ("kunlun-k200", 16, "昆仑芯k200"), ("kunlun-r200", 16, "r200 昆仑芯r200"), ("kunlun-r300", 32, "r300 昆仑芯r300 kunlunr480"),
        ("kunlun-p800", 96, "p800 昆仑芯p800 kunlunxinp800"),
    ),
    *_rows(
        "iluvatar", "gpu", True,
        ("iluvatar-bi100", 32, "biv100 bi100 天垓100 iluvatarbiv100"), ("iluvatar-bi150", 64, "biv150 bi150 天垓150 iluvatarbiv150"),
        ("iluvatar-mr100", 32, "mrv100 mr100 智铠100 iluvatarmrv100"),
    ),
    *_rows(
        "enflame", "gcu", True,
        ("enflame-i20", 16, "云燧i20"), ("enflame-t20", 32, "云燧t20"), ("enflame-s60", 48, "燧原s60 s60"),
        ("enflame-l600", 144, "燧原l600 l600"),
    ),
    *_rows("thead", "ppu", True, ("thead-ppu", 96, "ppu zw810e zhenwu810e 真武810e")),
    *_rows("thead", "npu", True, ("hanguang-800", 0, "含光800")),
    *_rows("biren", "gpu", True, ("biren-br100", 64, "br100 壁砺100"), ("biren-br104", 32, "br104 壁砺104"), ("biren-br106", 0, "br106 壁砺106")),
)  # fmt: skip

VENDORS: dict[str, str] = {  # spellings of a vendor; the values are the words of the table
    **{row.vendor: row.vendor for row in ACCELERATORS},
    "tpu": "google",
    "ascend": "huawei",
    "mthreads": "moore-threads",
    "moorethreads": "moore-threads",
    "kunlun": "kunlunxin",
    "t-head": "thead",
}
ARCHITECTURES: dict[str, str] = {  # spellings of an instruction set; the values are what `uname -m` says
    "x86_64": "x86_64",
    "x86": "x86_64",
    "x86-64": "x86_64",
    "amd64": "x86_64",
    "intel": "x86_64",
    "aarch64": "aarch64",
    "arm": "aarch64",
    "arm64": "aarch64",
    "kunpeng": "aarch64",
    "phytium": "aarch64",
    "loongarch64": "loongarch64",
    "loongarch": "loongarch64",
    "riscv64": "riscv64",
    "riscv": "riscv64",
    "ppc64le": "ppc64le",
    "sw_64": "sw_64",
}

_NAME = re.compile(r"[\w .+/-]*\Z")
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")
_MEMORY = re.compile(r"([1-9][0-9]{0,2})(?:gb?|gib)\Z")
_PARTS = re.compile(r"[\s_/-]+")
# Words around the name of a kind that say who made it, how it is packed and which memory it has.
_DECOR = frozenset({
    "nvidia", "tesla", "geforce", "quadro", "amd", "instinct", "radeon", "google", "huawei", "cambricon", "hygon", "mthreads", "moorethreads", "metax", "kunlunxin",
    "intel", "pcie", "sxm", "sxm2", "sxm3", "sxm4", "sxm5", "sxm6", "oam", "nvl", "hbm2", "hbm2e", "hbm3", "hbm3e", "gddr6", "graphics",
})  # fmt: skip


def _compact(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


_BY_SPELLING: dict[str, Accelerator] = {}
for _row in ACCELERATORS:
    for _spelling in (_row.name, *_row.aliases):
        _BY_SPELLING[_compact(_spelling)] = _row
_BY_NAME = {row.name: row for row in ACCELERATORS}


def known(kind: str) -> Accelerator | None:
    """The row of a canonical kind, if the table has one."""
    return _BY_NAME.get(kind)


def named(text: str) -> Named:
    """What the spelling ``text`` means: `A100-80GB`, `NVIDIA H100 80GB HBM3`, `Ascend 910B` or `昇腾910B`.

    A name that the table does not know is a kind of its own, in lower case. Raises ValueError when it cannot be a word.

    >>> named("NVIDIA A100-SXM4-80GB")
    Named(kind='a100', memory_bytes=80000000000, is_known=True)
    """
    name = text.strip().lower()
    if not name or len(name) > MAX_NAME or not _NAME.match(name):
        raise ValueError(
            f"`{text[:MAX_NAME]}` is no name of an accelerator: letters, digits, `.`, `_`, `-`, at most {MAX_NAME}"
        )
    if name in GROUPS:
        return Named(name, 0, is_known=True)
    if row := _BY_SPELLING.get(_compact(name)):
        return Named(row.name, 0, is_known=True)
    parts = [part for part in _PARTS.split(name) if part and part not in _DECOR]
    sizes = [int(match[1]) * GB for part in parts if (match := _MEMORY.match(part))]
    bare = [part for part in parts if not _MEMORY.match(part)]
    if bare and len(sizes) <= 1 and (row := _BY_SPELLING.get(_compact("".join(bare)))):
        stated = sizes[0] if sizes else 0  # far above any variant it is the memory of something else (GH200 480GB)
        return Named(row.name, stated if stated <= 3 * row.memory_bytes else 0, is_known=True)
    word = _PARTS.sub("-", name).strip("-")
    if not _WORD.match(word):
        raise ValueError(f"`{text[:MAX_NAME]}` is no name of an accelerator: letters, digits, `.`, `_` and `-`")
    return Named(word)


def nearest(kind: str) -> str:
    """The known kind whose spelling is nearest to ``kind``; empty when none is near."""
    import difflib  # here: only a name that is not known pays for it

    spellings = difflib.get_close_matches(_compact(kind)[:MAX_NAME], list(_BY_SPELLING), n=1, cutoff=0.7)
    return _BY_SPELLING[spellings[0]].name if spellings else ""


def architecture(text: str) -> str:
    """The instruction set that ``text`` means, as `uname -m` says it. Raises ValueError for one that is not known."""
    word = ARCHITECTURES.get(text.strip().lower())
    if word is None:
        raise ValueError(
            f"`{text[:MAX_NAME]}` is no instruction set here: {', '.join(sorted(set(ARCHITECTURES.values())))}"
        )
    return word
