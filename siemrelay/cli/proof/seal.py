"""`siemrelay seal`: the signing keys and the sealed streams of a relay."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import click
import msgspec

from siemrelay.buffer.rows import StoredCursor
from siemrelay.cli.buffer.open_buffer import load_or_exit, open_buffer
from siemrelay.cli.options import config_option
from siemrelay.cli.person import audit
from siemrelay.cli.refusal import refuse
from siemrelay.config.models import RelayConfig
from siemrelay.core.errors import StartRefused
from siemrelay.core.event_types import SEAL_KEY_ROTATED
from siemrelay.core.options import UNREAD_CREDENTIAL
from siemrelay.core.times import rfc3339
from siemrelay.pipeline.sealing.archive import read_leaves, read_seals, read_timestamps
from siemrelay.pipeline.sealing.keys import SealKeys, key_file
from siemrelay.proof.merkle import HASH_BYTES
from siemrelay.proof.note import Signer
from siemrelay.proof.seal import note_of
from siemrelay.proof.stream import StreamState
from siemrelay.proof.tiles import TIMESTAMPS_FOLDER, split, tiles_of
from siemrelay.relay.assembly import relay_name


@click.group()
def seal() -> None:
    """Manage the signing keys and sealed streams of sinks with `seal:`.

    `siemrelay verify` checks a SIEM's export with the verifier key that `siemrelay seal key`
    prints.
    """


@seal.command(short_help="print the verifier key, for auditors")
@config_option()
def key(config: str) -> None:
    """Print the verifier key, for auditors; makes the signing key if there is none.

    Keep a copy where the relay cannot change it: auditors must have it from you and not from the
    SIEM. After a rotation all keys are printed, the present one last.
    """
    loaded = load_or_exit(config).config
    given = {sink.seal.key for sink in loaded.sinks.values() if sink.seal} or {None}
    signers = [signer for text in given for signer in _signers(loaded.state_dir, text)]
    for signer in dict.fromkeys(signers):
        click.echo(str(signer.verifier))


@seal.command(short_help="make a new signing key")
@config_option()
def rotate(config: str) -> None:
    """Make a new signing key; the relay signs with it from its next seal on.

    For an hour both keys sign, so that an auditor with the old one can trust the new one. The old
    signing key is removed then. A key in the configuration (`seal.key`) has to be changed there.
    """
    loaded = load_or_exit(config).config
    sealed = {name: sink.seal.key for name, sink in loaded.sinks.items() if sink.seal}
    others = [name for name, given in sealed.items() if given is not None]
    if others and len(others) == len(sealed):
        raise click.UsageError("every sealed sink signs with the key of its configuration: put a "
                               "new one into `seal.key` there, and give auditors both verifier "
                               "keys")  # fmt: skip
    signers = _signers(loaded.state_dir)
    audit(loaded, SEAL_KEY_ROTATED, "", "made a new key that signs seals")
    new = Signer.generate(relay_name())
    SealKeys(loaded.state_dir, relay_name()).rotate(new)
    click.echo(str(new.verifier))
    before = signers[-1].verifier
    click.echo(f"give this verifier key to your auditors; the one before was {before}", err=True)
    if others:
        click.echo(f"not of {', '.join(others)}: a key of the configuration signs there", err=True)


@seal.command(short_help="show each sealed stream, its last checkpoint and its key")
@config_option()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(config: str, as_json: bool) -> None:
    """Show for each sink with `seal:` its stream, its last checkpoint and the key that signs."""
    loaded = load_or_exit(config).config
    with open_buffer(loaded.state_dir) as store:
        cursors = store.opened().sinks()
    streams = {
        name: {**found, "key": _key_name(loaded, name)}
        for name, cursor in cursors.items()
        if (found := _shown(cursor)) is not None and name in loaded.sinks
    }
    if as_json:
        click.echo(msgspec.json.encode(streams).decode())
        return
    if not streams:
        click.echo("no sink has sent anything under a seal; set `seal: yes` on one")
    for name, stream in streams.items():
        click.echo(f"{name}: {stream['origin']}, {stream['messages']:,} messages")
        click.echo(f"  {stream['under_seal']:,} under seal, sealed until "
                   f"{stream['sealed_at'] or 'never yet'}")  # fmt: skip
        if stream["root"]:
            root = b64encode(bytes.fromhex(stream["root"])).decode()
            click.echo(f"  last checkpoint: size {stream['under_seal']}, root {root}")
        click.echo(f"  key: {stream['key'] or 'none yet'}")


@seal.command(short_help="write the hashes of a sink's messages, for `verify --tiles`")
@config_option()
@click.argument("sink")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def export(config: str, sink: str, folder: Path) -> None:
    """Write the hashes of SINK's messages into FOLDER, for `siemrelay verify --tiles`.

    For each stream a folder of C2SP tiles and its last seal. They hold no event and need not be
    trusted: the signed roots show whether they are true. They are kept for `seal.keep`. Time stamps
    are in `timestamps/`: NUMBER.note is the signed note of that seal and NUMBER.tsr the authority's
    answer, for `openssl ts -verify -data NUMBER.note -in NUMBER.tsr -CAfile …`, too.
    """
    loaded = load_or_exit(config).config
    with open_buffer(loaded.state_dir) as store:
        cursor = store.opened().sinks().get(sink)
    state = StreamState.read(cursor.stream) if cursor is not None else None
    if state is None:
        raise click.UsageError(f"sink {sink} has sent nothing under a seal")
    streams = [path for path in sorted((loaded.state_dir / "seals").glob("*")) if path.is_dir()]
    written = 0
    for path in streams:
        last = max(read_seals(path), key=lambda found: found.number, default=None)
        origin = "" if last is None else last.origin
        if last is None or not origin.endswith(f"/{sink}/{path.name}"):
            continue
        leaves = _leaves(path)
        for name, tile in tiles_of(leaves):
            target = folder / path.name / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(tile)
        (folder / path.name).mkdir(parents=True, exist_ok=True)
        (folder / path.name / "seal").write_text(last.text + "\n")
        stamps = _export_timestamps(path, folder / path.name / TIMESTAMPS_FOLDER)
        written += 1
        click.echo(f"{origin}: {len(leaves):,} hashes" + f", {stamps:,} time stamps" * bool(stamps))
    if not written:
        click.echo("no seal has been confirmed yet")


def _export_timestamps(archive: Path, target: Path) -> int:
    """Write the time stamps of a stream's seals; returns how many."""
    stamps = {stamp.number: stamp for stamp in read_timestamps(archive)}
    count = 0
    for found in read_seals(archive) if stamps else ():
        if (stamp := stamps.get(found.number)) is not None:
            target.mkdir(parents=True, exist_ok=True)
            (target / f"{stamp.number}.note").write_bytes(note_of(found.text))
            (target / f"{stamp.number}.tsr").write_bytes(stamp.response)
            count += 1
    return count


def _leaves(path: Path) -> list[bytes]:
    """The leaves of a stream from number 0 on; 32 zeros for those that are not kept any more."""
    whole = bytearray()
    for first, part in read_leaves(path):
        whole += bytes(max(first * HASH_BYTES - len(whole), 0))
        whole += part
    return split(bytes(whole))


def _shown(cursor: StoredCursor) -> dict[str, Any] | None:
    state = StreamState.read(cursor.stream)
    if state is None:
        return None
    sealed = state.sealed
    return {
        "origin": state.origin, "messages": state.tree.size, "under_seal": sealed.size,
        "root": sealed.root, "sealed_at": rfc3339(sealed.at) if sealed.root else None,
        "cause": state.cause,
    }  # fmt: skip


def _key_name(config: RelayConfig, sink: str) -> str | None:
    """NAME+ID of the key that signs this sink's seals, as they stand in the verifier key."""
    seal = config.sinks[sink].seal
    given = seal.key if seal else None
    if given == UNREAD_CREDENTIAL:
        return "of a credential that this command cannot read"
    if given is None and not key_file(config.state_dir).exists():
        return None
    return _signers(config.state_dir, given)[-1].verifier.title


def _signers(state_dir: Path, given: str | None = None) -> list[Signer]:
    if given == UNREAD_CREDENTIAL:
        click.secho(
            "siemrelay: the signing key is a credential that this command cannot read: run "
            "it as the user, and with the credentials, of the service",
            err=True,
            fg="red",
        )
        raise SystemExit(1)
    try:
        return SealKeys(state_dir, relay_name(), given).make()
    except StartRefused as error:
        refuse(f"siemrelay: {error}", 1)
