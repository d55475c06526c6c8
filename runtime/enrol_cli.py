"""`tagclip enrol`: make this device known to a station."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("string", metavar="ENROLMENT")
@click.option("--device", required=True, metavar="NAME", help="As the station's operator named it.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("station-link"),
    show_default=True,
    help="For the station's certificate, this device's token and its outbox; `tagclip run --station` takes it.",
)
@click.option("--bundle", type=click.Path(path_type=Path), help="Of the device.  [default: ours]")
def enrol(string: str, device: str, folder: Path, bundle: Path | None) -> None:
    """Make this device known to the station that printed ENROLMENT (`tagclip station enrol NAME`)."""
    from tagclip.runtime.bundle import open_bundle
    from tagclip.runtime.sync_enrol import enrol as enrolled

    known = enrolled(string, device, folder, open_bundle(bundle).encoder_id)
    click.echo(
        f"{known.device} is known to {known.address}; tagclip run SOURCE --store FILE --station {folder}"
    )
