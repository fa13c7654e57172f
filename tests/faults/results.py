"""The records on the results topic, decoded: MessagePack or JSON, as the job was."""

import json
import struct


def unpack(data):
    """One MessagePack value; raises ValueError where the bytes are not exactly that."""
    value, end = _value(data, 0)
    if end != len(data):
        raise ValueError("bytes after the value")
    return value


_NUMBERS = {0xca: ">f", 0xcb: ">d", 0xcc: ">B", 0xcd: ">H", 0xce: ">I", 0xcf: ">Q",
            0xd0: ">b", 0xd1: ">h", 0xd2: ">i", 0xd3: ">q"}
_TEXT = {0xd9: ">B", 0xda: ">H", 0xdb: ">I", 0xc4: ">B", 0xc5: ">H", 0xc6: ">I"}
_LISTS = {0xdc: ">H", 0xdd: ">I"}
_MAPS = {0xde: ">H", 0xdf: ">I"}
_CONSTANTS = {0xc0: None, 0xc2: False, 0xc3: True}


def _number(form, data, at):
    try:
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    except struct.error as error:
        raise ValueError("cut short") from error


def _value(data, at):
    kind, at = _number(">B", data, at)
    if kind < 0x80:
        return kind, at
    if kind >= 0xe0:
        return kind - 256, at
    if kind < 0x90:
        return _map(data, at, kind & 15)
    if kind < 0xa0:
        return _list(data, at, kind & 15)
    if kind < 0xc0:
        return _text(data, at, kind & 31)
    if kind in _CONSTANTS:
        return _CONSTANTS[kind], at
    if kind in _NUMBERS:
        return _number(_NUMBERS[kind], data, at)
    for forms, read in ((_TEXT, _text), (_LISTS, _list), (_MAPS, _map)):
        if kind in forms:
            size, at = _number(forms[kind], data, at)
            return read(data, at, size)
    raise ValueError(f"unknown type {kind:#x}")


def _text(data, at, size):
    if at + size > len(data):
        raise ValueError("cut short")
    return data[at:at + size].decode("utf-8", "replace"), at + size


def _list(data, at, size):
    found = []
    for _ in range(size):
        value, at = _value(data, at)
        found.append(value)
    return found, at


def _map(data, at, size):
    found = {}
    for _ in range(size):
        key, at = _value(data, at)
        found[key], at = _value(data, at)
    return found, at


def by_query(records):
    """{query id: [payload, ...]} of the records of a results topic."""
    found = {}
    for record in records:
        found.setdefault(record["headers"].get("sluice-id"), []).append(record["payload"])
    return found


def decode(payload):
    return json.loads(payload) if payload[:1] == b"{" else unpack(payload)
