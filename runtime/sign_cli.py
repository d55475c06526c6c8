"""`tagclip bundle sign`."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--key",
    "key_file",
    metavar="PRIVATE.pem",
    required=True,
    type=click.Path(path_type=Path),
    help="Ed25519 key in PEM form (PKCS #8).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def sign(folder: Path, key_file: Path, as_json: bool) -> None:
    """Check BUNDLE and write its SIGNATURE, over an older one if there is one.

    Make a key with `openssl genpkey -algorithm ed25519 -out private.pem`, and the public key for the devices with
    `openssl pkey -in private.pem -pubout -out public.pem`. The passphrase of an encrypted key is asked for.
    """
    from tagclip.runtime.bundle_sign import sign_bundle
    from tagclip.runtime.keys import is_private, read_private_key

    key = read_private_key(
        key_file, lambda: click.prompt(f"Passphrase of {key_file}", hide_input=True, err=True)
    )
    if not is_private(key_file):
        click.echo(f"warning: other users can read {key_file}; run `chmod 600 {key_file}`", err=True)
    bundle = sign_bundle(folder, key)
    if as_json:
        result = {"encoder_id": bundle.encoder_id, "files": len(bundle.sha256), "key_id": key.public.id}
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(f"signed {len(bundle.sha256)} files of {folder} with key {key.public.id}")
