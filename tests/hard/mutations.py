"""Damage to files: blind, and by formats that a blind change would only break at their outside."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from google.protobuf import text_format

from lglstm.caffe_files.layer_types import LAYER_TYPES
from lglstm.caffe_files.schema import NetParameter

Mutation = Callable[[bytes, list[bytes], random.Random], bytes]
"""The sound bytes, all seeds of the reader, where chance comes from → damaged bytes."""

LONGEST = 1 << 16
"""Bytes that a mutation may make of a small file; what repeats is found in less."""

NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**24, 2**29, 2**31 - 1, 2**31)
NUMBERS += (2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)

WORDS = [str(number).encode() for number in (*NUMBERS, *(-n for n in NUMBERS))]
WORDS += [b"1" + b"0" * 400, b"-1" + b"0" * 400, b"1" + b"0" * 5000, b"1e400", b"-1e400", b"1e-400"]
WORDS += [b"nan", b"NaN", b"inf", b"-Infinity", b"0.5", b"2.5", b"-0", b"0x10", b"null", b"true"]
WORDS += [
    b'""',
    b'"a"',
    b"[]",
    b"{}",
    b"[[]]",
    b'{"a": 1}',
    b"\\",
    b'"',
    b"'",
    b"{",
    b"}",
    b"[",
    b"]",
]
WORDS += [
    b"<",
    b">",
    b"#",
    b":",
    b",",
    b"\n",
    b"\r",
    b"\t",
    b" ",
    b"\0",
    b"\\0",
    b"\\u0000",
    b"\\ud800",
]
WORDS += [b"\xef\xbb\xbf", b"\xff", b"\xc3", b"\xed\xa0\x80", "\u2028".encode(), "²".encode()]
WORDS += [
    "٣".encode(),
    b"../..",
    b"/etc/passwd",
    b"/",
    b".",
    b"..",
    b"%s%n",
    b"[/]",
    b"[red]",
    b"a" * 300,
]


def damaged(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """One blind change, or several."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(_BLIND)(data, seeds, rng)
    return data[: max(LONGEST, 4 * max(map(len, seeds)))]


def _span(data: bytes, rng: random.Random, most: int = 64) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.randint(1, most))


def _cut_off(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _cut_out(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def _flip(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8) if data else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _bytes(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4) if data else 0):
        changed[rng.randrange(len(changed))] = rng.choice(
            (0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256))
        )
    return bytes(changed)


def _number(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """A number of any width and order in place of what is there."""
    width = rng.choice((1, 2, 4, 8))
    start = rng.randrange(max(1, len(data) - width + 1))
    value = (
        rng.choice(NUMBERS) if rng.random() < 0.7 else int.from_bytes(data[start : start + width])
    )
    value = (value + rng.choice((0, 0, 1, -1, 4, -4))) % 256**width
    order = rng.choice(("little", "big"))
    return data[:start] + value.to_bytes(width, order) + data[start + width :]


def _splice(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    other = rng.choice(seeds)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _copy(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    (start, end), place = _span(data, rng), rng.randrange(len(data) + 1)
    times = rng.choice((1, 1, 1, 2, 30, 500))
    return data[:place] + data[start:end] * times + data[place:]


def _word(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    start, end = _span(data, rng, 8)
    return data[:start] + rng.choice(WORDS) + data[rng.choice((start, end)) :]


def _insert(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.randint(1, 32)) + data[place:]


_BLIND = (_cut_off, _cut_out, _flip, _bytes, _number, _splice, _copy, _word, _insert)


# --- Text -----------------------------------------------------------------------------------------

_TOKEN = re.compile(rb'"(?:\\.|[^"\\\n])*"|[\w.+-]+|\s+|.', re.S)


def text(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """Words and lines exchanged, left out, repeated; numbers that nobody expects; deep nesting."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        tokens = _TOKEN.findall(data)
        if not tokens:
            return rng.choice(WORDS)
        at, other = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        match rng.randrange(9):
            case 0 | 1:
                numbers = [i for i, token in enumerate(tokens) if token[:1].isdigit()]
                tokens[rng.choice(numbers or [at])] = rng.choice(WORDS)
            case 2:
                tokens[at] = rng.choice(WORDS)
            case 3:
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case 4:
                tokens[at] = rng.choice(_TOKEN.findall(rng.choice(seeds)) or [b""])
            case 5:
                del tokens[min(at, other) : min(at, other) + rng.randint(1, 12)]
            case 6:
                tokens[at:at] = tokens[other : other + rng.randint(1, 40)] * rng.choice((1, 2, 50))
            case 7:
                opening = rng.choice(
                    (b"{", b"[", b"<", b"(", b"a {", b'{"a":', b'"', b"\\", b"'\\")
                )
                tokens[at:at] = [opening * rng.choice((1, 5, 100, 2000))]
            case 8:
                lines = data.splitlines(keepends=True)
                rng.shuffle(lines)
                tokens = lines[: rng.randint(1, len(lines) + 1)]
        data = b"".join(tokens)[:LONGEST]
    return data


def json_tree(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """Values of a JSON text exchanged by others of all kinds."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return text(data, seeds, rng)
    for _ in range(rng.choice((1, 1, 2))):
        tree = _other_value(tree, rng)
    return json.dumps(tree).encode()


def _other_value(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        match rng.randrange(8):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return value | {rng.choice(("", "a", key + "x", "[/]")): value[key]}
        return value | {key: _other_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        match rng.randrange(6):
            case 0:
                return value[:at]
            case 1:
                return value * rng.choice((2, 100))
        return [*value[:at], _other_value(value[at], rng), *value[at + 1 :]]
    odd: list[Any] = [
        None,
        True,
        0,
        -1,
        0.5,
        -0.0,
        "",
        "a",
        [],
        {},
        [[]],
        {"a": None},
        10**400,
        2**63,
    ]
    odd += [
        float("nan"),
        float("inf"),
        1e308,
        "\0",
        "\ud800",
        "a\nb",
        "a" * 300,
        [value],
        str(value),
    ]
    odd += [2**31, 255, 256, {"": value}]
    return rng.choice(odd)


# --- Protobuf's wire format -----------------------------------------------------------------------

Record = tuple[int, int, Any]
"""Number, wire type, and a number, bytes or records."""


def wire(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """Records changed, exchanged and repeated, with lengths that are right again."""
    records = _records(data)
    if not records:
        return damaged(data, seeds, rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change(records, rng)
    return _encoded(records)[: max(LONGEST, 2 * len(data))]


def _change(records: list[Record], rng: random.Random) -> None:
    at = rng.randrange(len(records))
    number, kind, value = records[at]
    if isinstance(value, list) and value and rng.random() < 0.8:
        return _change(value, rng)
    match rng.randrange(7):
        case 0:
            records[at] = (rng.choice((0, 1, 2, 5, 7, 8, 10, 12, 100, 2**28)), kind, value)
        case 1:
            if len(records) > 1:
                del records[at]
        case 2:
            records[at:at] = [records[at]] * rng.choice((1, 2, 70))
        case 3:
            records[at], records[-1] = records[-1], records[at]
        case 4:
            records[at] = (number, 0, rng.choice(NUMBERS))
        case 5:
            content = value if isinstance(value, bytes) else _encoded([records[at]])
            records[at] = (number, 2, rng.choice(_BLIND)(content, [content], rng))
        case 6:
            nested: list[Record] = [records[at]]
            for _ in range(rng.choice((1, 5, 200))):
                nested = [(number, 2, nested)]
            records[at] = nested[0]
    return None


def _records(data: bytes, depth: int = 0) -> list[Record]:
    """What is well-formed as records, to any depth; an empty list for anything else."""
    found: list[Record] = []
    at = 0
    while at < len(data):
        try:
            key, at = _varint(data, at)
            number, kind = key >> 3, key & 7
            if number == 0 or number > 1000:
                return []
            if kind == 0:
                value, at = _varint(data, at)
                found.append((number, kind, value))
                continue
            length = {1: 8, 5: 4}.get(kind, -1)
            if kind == 2:
                length, at = _varint(data, at)
        except IndexError:
            return []
        if length < 0 or at + length > len(data):
            return []
        content = data[at : at + length]
        inner = _records(content, depth + 1) if kind == 2 and length > 1 and depth < 6 else []
        found.append((number, kind, inner or content))
        at += length
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    return value, at


def _encoded(records: list[Record]) -> bytes:
    out = bytearray()
    for number, kind, value in records:
        out += _as_varint(number << 3 | kind)
        if kind == 0:
            out += _as_varint(value if isinstance(value, int) else 0)
            continue
        content = _encoded(value) if isinstance(value, list) else value
        if isinstance(content, int):
            content = content.to_bytes(8, "little")
        out += (_as_varint(len(content)) if kind == 2 else b"") + content
    return bytes(out)


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# --- Containers with checksums and lengths --------------------------------------------------------


def zipped(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """A member of an archive damaged, renamed, repeated or left out, the archive sound."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except Exception:
        return damaged(data, seeds, rng)
    if not members:
        return damaged(data, seeds, rng)
    at = rng.randrange(len(members))
    name, content = members[at]
    match rng.randrange(10):
        case 0:
            del members[at]
        case 1:
            members.append(members[at])
        case 2:
            members[at] = (
                rng.choice(("", "a", "a/0.npy", "../x.npy", name + "x", "\u2028")),
                content,
            )
        case 3:
            members[at] = (name, content + b"\0" * rng.choice((1, 1 << 16)))
        case 4 | 5:  # the head, where lengths and types are
            head = content[:160]
            members[at] = (name, text(head, [head], rng) + content[160:])
        case 6:
            head = content[:160]
            members[at] = (name, damaged(head, [head], rng) + content[160:])
        case _:
            members[at] = (name, damaged(content, [content], rng))
    out = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name or "a"), content, method)
    return out.getvalue()


def png(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """A chunk damaged, repeated, moved or left out, with checksums that are right again."""
    chunks: list[tuple[bytes, bytes]] = []
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return damaged(data, seeds, rng)
    for _ in range(rng.choice((1, 1, 2))):
        i = rng.randrange(len(chunks))
        kind, content = chunks[i]
        match rng.randrange(6):
            case 0 if len(chunks) > 1:
                del chunks[i]
            case 1:
                chunks.insert(rng.randrange(len(chunks)), chunks[i])
            case 2 if kind == b"IDAT":
                try:
                    pixels = zlib.decompress(content)
                except zlib.error:
                    pixels = content
                chunks[i] = (kind, zlib.compress(damaged(pixels, [pixels], rng)))
            case 3:
                kinds = (
                    b"tRNS",
                    b"gAMA",
                    b"iCCP",
                    b"eXIf",
                    b"tEXt",
                    b"zTXt",
                    b"iTXt",
                    b"acTL",
                    b"PLTE",
                )
                chunks.insert(i, (rng.choice(kinds), rng.randbytes(rng.randrange(40))))
            case _:
                chunks[i] = (kind, damaged(content, [content], rng))
    out = bytearray(data[:8])
    for kind, content in chunks:
        out += struct.pack(">I", len(content)) + kind + content
        out += struct.pack(">I", zlib.crc32(kind + content))
    return bytes(out)


def mat5(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """What is inside a compressed variable damaged, the compression sound."""
    if len(data) < 136 or struct.unpack("<I", data[128:132])[0] != 15:
        return damaged(data, seeds, rng)
    size = struct.unpack("<I", data[132:136])[0]
    try:
        content = zlib.decompress(data[136 : 136 + size])
    except zlib.error:
        return damaged(data, seeds, rng)
    if rng.random() < 0.2:
        content += b"\0" * rng.choice((8, 1 << 16, 1 << 22))
    packed = zlib.compress(rng.choice((damaged, _number, _flip))(content, [content], rng), 1)
    head = data[:128] + struct.pack("<II", 15, len(packed))
    return head + packed + data[136 + size :]


def safetensors(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """The head, which is JSON, damaged, with its length right again."""
    length = int.from_bytes(data[:8], "little")
    head = rng.choice((json_tree, text))(data[8 : 8 + length], [data[8 : 8 + length]], rng)
    return len(head).to_bytes(8, "little") + head + data[8 + length :]


# --- Nets -----------------------------------------------------------------------------------------


def prototxt(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """Fields of a net's messages changed to values of their types, or the text damaged."""
    net = NetParameter()
    try:
        if rng.random() < 0.4:
            raise ValueError
        text_format.Parse(data.decode(), net, descriptor_pool=net.DESCRIPTOR.file.pool)
    except (ValueError, text_format.ParseError):
        return text(data, seeds, rng)
    names = [word for layer in net.layer for word in (layer.name, *layer.bottom, *layer.top)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change_message(net, [*names, "", "a", "data", "\0", "[/]"], rng)
    return str(net).encode()[:LONGEST]


def _change_message(message: Any, names: list[str], rng: random.Random) -> None:
    inner = [(f, v) for f, v in message.ListFields() if f.message_type is not None]
    if inner and rng.random() < 0.8:
        field, value = rng.choice(inner)
        if not field.is_repeated:
            return _change_message(value, names, rng)
        match rng.randrange(8):
            case 0:
                del value[rng.randrange(len(value))]
            case 1:
                value.add().CopyFrom(rng.choice(value))
            case 2:
                value[rng.randrange(len(value))].CopyFrom(rng.choice(value))
            case _:
                _change_message(rng.choice(value), names, rng)
        return None
    field = rng.choice(message.DESCRIPTOR.fields)
    if field.message_type is not None:
        child = getattr(message, field.name)
        return _change_message(child.add() if field.is_repeated else child, names, rng)
    if rng.random() < 0.2:
        message.ClearField(field.name)
        return None
    value = _value_for(field, message, names, rng)
    try:
        if field.is_repeated:
            getattr(message, field.name).extend([value] * rng.choice((1, 1, 2, 5)))
        else:
            setattr(message, field.name, value)
    except (ValueError, TypeError):
        message.ClearField(field.name)
    return None


def _value_for(field: Any, message: Any, names: list[str], rng: random.Random) -> Any:
    if field.enum_type is not None:
        return rng.choice(field.enum_type.values).number
    if field.type == field.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return rng.choice((0.0, -0.0, 1.0, -1.0, 0.1, 1e30, float("inf"), float("nan")))
    if field.type == field.TYPE_BYTES:
        return rng.randbytes(8)
    if field.type != field.TYPE_STRING:
        return rng.choice((0, 1, 2, 3, 4, 7, 16, -1, -2, *NUMBERS))
    if field.name == "param_str":
        given = message.param_str.encode()
        return rng.choice((json_tree, text))(given, [given], rng).decode(errors="replace")
    if field.name == "type" and "bottom" in message.DESCRIPTOR.fields_by_name:
        return rng.choice([*LAYER_TYPES, "Python", "Accuracy", "Data", "Nope"])
    return rng.choice(names)
