"""The reference tables of the language, made from the code: attributes, types and units, in English and Chinese."""

from __future__ import annotations

import re

from tieline.language.attributes import DEMAND, KINDS, OFFER, Attribute
from tieline.language.types import EXAMPLE, SUFFIX, UNITS, Type
from tieline.model.kinds import KINDS as ROWS

ENGLISH: dict[Type, str] = {
    Type.TEXT: "a text; `==`, `!=` and `in` only",
    Type.WORDS: "a set of texts: `word in tags`",
    Type.FLAG: "true or false; stands by itself",
    Type.COUNT: "a whole number without a unit",
    Type.SHARE: "a share, kept in millionths",
    Type.MONEY: "money; a bare number is CNY",
    Type.SIZE: "a size; the unit is needed",
    Type.DURATION: "a time; the unit is needed",
    Type.RATE: "a rate; the unit is needed",
    Type.INSTANT: "a date or a time, ISO 8601, UTC where no zone is said",
}
CHINESE: dict[Type, str] = {
    Type.TEXT: "文本；只能用 `==`、`!=` 和 `in`",
    Type.WORDS: "一组文本：`word in tags`",
    Type.FLAG: "真或假；可单独书写",
    Type.COUNT: "不带单位的整数",
    Type.SHARE: "比率，按百万分之一保存",
    Type.MONEY: "金额；不写单位即为元",
    Type.SIZE: "大小；必须写单位",
    Type.DURATION: "时间；必须写单位",
    Type.RATE: "速率；必须写单位",
    Type.INSTANT: "日期或时刻，ISO 8601，未写时区按 UTC",
}
_HEADS = {
    "en": ("| attribute | 中文 | type | kinds | field in answers | means | from |", "every kind"),
    "zh": ("| 属性 | 中文别名 | 类型 | 种类 | 应答字段 | 含义 | 来源 |", "所有种类"),
}
_MARK = re.compile(r"(<!-- (\w+): made from the code -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, lang: str) -> str:
    """``text`` with each ``<!-- name: made from the code -->`` section made anew: types, offer and demand."""
    made = {"types": types_table(lang), "offer": attribute_table(OFFER, lang), "demand": attribute_table(DEMAND, lang)}
    return _MARK.sub(lambda match: match[1] + made[match[2]] + match[3], text)


def attribute_table(rows: tuple[Attribute, ...], lang: str) -> str:
    """A Markdown table of attributes."""
    head, every = _HEADS[lang]
    lines = [head, "|---|---|---|---|---|---|---|"]
    for row in rows:
        name = f"`{row.name}({row.argument})`" if row.argument else f"`{row.name}`"
        kinds = ", ".join(_kind(kind, lang) for kind in row.kinds) or every
        meaning = row.meaning_zh if lang == "zh" else row.meaning
        field = f"`{row.field}`" if not row.argument or row.name in ("label", "evidence") else _field(row)
        lines.append(f"| {name} | {row.zh} | {row.type} | {kinds} | {field} | {meaning} | {row.source} |")
    return "\n".join(lines) + "\n"


def types_table(lang: str) -> str:
    """A Markdown table of types with their units."""
    head = (
        "| 类型 | 含义 | 单位 | 字段后缀 | 例 |"
        if lang == "zh"
        else "| type | means | units | field ends in | example |"
    )
    words = CHINESE if lang == "zh" else ENGLISH
    lines = [head, "|---|---|---|---|---|"]
    for kind in Type:
        units = " ".join(f"`{unit}`" for unit in UNITS.get(kind, {}) if unit)
        suffix = f"`{SUFFIX[kind]}`" if kind in SUFFIX else ""
        example = f"`{EXAMPLE[kind]}`" if kind in EXAMPLE else '`"green" in tags`'
        lines.append(f"| {kind} | {words[kind]} | {units} | {suffix} | {example} |")
    return "\n".join(lines) + "\n"


def _field(row: Attribute) -> str:
    if row.name == "has":
        return "`tags`"
    if row.name == "metric":
        return "`metric_millionths`"
    return f"`{row.name}(...){SUFFIX.get(row.type, '')}`"


def _kind(kind: str, lang: str) -> str:
    assert kind in KINDS, kind
    return ROWS[kind].zh if lang == "zh" else kind
