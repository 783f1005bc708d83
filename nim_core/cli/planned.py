"""A plan as people and as programs read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from attrs import asdict

from nim_core.cache.space import DeviceNeed
from nim_core.cli.logging import printable
from nim_core.cli.units import size
from nim_core.errors import NimError
from nim_core.planning import CredentialUse, DownloadPlan, HostUse, PlannedFile

__all__ = ["plan_as_json", "plan_as_text"]

_WIDTH: Final = 80
_MOST_ROWS: Final = 20


def plan_as_text(plan: DownloadPlan) -> str:
    """Return the largest files to fetch as a table, and what all of it takes, in lines of 80 characters."""
    titles = [f"{printable(target.label)}: {_files(len(target.files))}" for target in plan.targets]
    devices = map(_device, plan.outlook.devices)
    return "\n".join([*titles, "", *_table(plan.wanting), *_totals(plan), *devices, *_network(plan)])


def _table(files: Iterable[PlannedFile]) -> Iterator[str]:
    rows = sorted(files, key=lambda file: -(file.size or 0))
    if rows:
        yield f"{'':6}  {'size':>8}  {'to fetch':>8}  file"
    for file in rows[:_MOST_ROWS]:
        row = f"{file.state:6}  {_size(file.size):>8}  {_size(file.to_fetch):>8}  "
        yield row + _shortened(printable(file.path), _WIDTH - len(row))
    rest = rows[_MOST_ROWS:]
    if rest:
        yield f"and {_files(len(rest))} more, {size(sum(file.to_fetch or 0 for file in rest))}; --json lists all"
    if rows:
        yield ""


def _totals(plan: DownloadPlan) -> Iterator[str]:
    count, unknown = len(plan.wanting), plan.unknown_sizes
    more = f" and {unknown} of unknown size" if unknown else ""
    yield f"to fetch: {_files(count)}, {size(plan.bytes_to_fetch)}{more}" if count else "nothing to fetch"
    if plan.bytes_resumed:
        yield f"partly fetched already: {size(plan.bytes_resumed)}"
    for state, words in (("cached", "in the cache"), ("local", "used from where they are")):
        here = [file for file in plan.files if file.state == state]
        if here:
            yield f"{words}: {_files(len(here))}, {size(sum(file.size or 0 for file in here))}"
    if plan.damaged:
        yield f"damaged in the cache: {_files(len(plan.damaged))}"


def _device(need: DeviceNeed) -> str:
    verdict = "fits" if need.error is None else "does not fit"
    return f"disk {printable(str(need.mount))}: {size(need.needed)} needed, {size(need.free)} free: {verdict}"


def _network(plan: DownloadPlan) -> Iterator[str]:
    outlook = plan.outlook
    if not outlook.sources:
        yield "no network is used"
    for source in outlook.sources:
        yield f"source {source.scheme}://: {source.distribution} {source.version}"
    yield from map(_host, outlook.hosts)
    if any(host.files for host in outlook.hosts):
        yield "  and where these redirect to, which is known on the way only"
    if outlook.unasked:
        yield f"  and what has the files of {outlook.unasked} more places, not looked up"
    for scheme in outlook.streamed:
        yield f"  and where the library behind {scheme}:// gets bytes from"
    yield from map(_credential, outlook.credentials)


def _host(use: HostUse) -> str:
    purpose = " and ".join(word for word, applies in (("listing", use.listing), ("files", use.files)) if applies)
    return f"host {use.host}: {purpose}{f', through {use.proxy}' if use.proxy else ''}"


def _credential(use: CredentialUse) -> str:
    kind = use.kind.replace("_", " ")
    origin = "" if use.origin == kind else f" from {printable(use.origin)}"
    until = "" if use.expires_at is None else f" until {_time(use.expires_at)}"
    return f"credential for {use.endpoint}: {kind}{origin}{until}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _size(count: int | None) -> str:
    return "?" if count is None else size(count)


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def _shortened(text: str, width: int) -> str:
    """Return ``text`` without its middle where it is too long: names of shards differ at the end."""
    half = (width - 1) // 2
    return text if len(text) <= width else f"{text[: width - 1 - half]}…{text[-half:]}"


def plan_as_json(plan: DownloadPlan) -> Mapping[str, Any]:
    """Return a plan as it is printed with ``--json``."""
    outlook = plan.outlook
    return {
        "targets": [{"id": target.id, "label": target.label, "files": len(target.files)} for target in plan.targets],
        "files": [asdict(file) | {"to_fetch": file.to_fetch} for file in plan.files],
        "files_to_fetch": len(plan.wanting),
        "bytes_to_fetch": plan.bytes_to_fetch,
        "bytes_resumed": plan.bytes_resumed,
        "unknown_sizes": plan.unknown_sizes,
        "devices": [_device_record(need) for need in outlook.devices],
        "sources": [asdict(source) for source in outlook.sources],
        "hosts": [asdict(host) for host in outlook.hosts],
        "places_not_looked_up": outlook.unasked,
        "streamed": list(outlook.streamed),
        "credentials": [asdict(credential) for credential in outlook.credentials],
        "damaged": list(plan.damaged),
        "error": _error_record(plan.error),
    }


def _device_record(need: DeviceNeed) -> Mapping[str, Any]:
    return {
        "mount": str(need.mount),
        "folder": str(need.folder),
        "needed": need.needed,
        "free": need.free,
        "inodes_needed": need.inodes,
        "inodes_free": need.inodes_free,
        "fits": need.error is None,
    }


def _error_record(error: NimError | None) -> Mapping[str, Any] | None:
    return None if error is None else {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
