"""What a way to the station must do, whatever it is made of, and how it says that it cannot."""

from __future__ import annotations

from typing import Any, Protocol

from tagclip.runtime.sync_messages import Answer


class Carrier(Protocol):
    """A way to one station. `exchange` and `queries` are called by a thread each, at the same time.

    Attributes:
        skew_s: the station's clock minus this machine's, as far as it is known.
    """

    skew_s: float | None

    def exchange(self, batch: bytes, timeout_s: float) -> Answer:
        """Send a batch and give what the station says to it.

        Raises:
            LinkError, CredentialError, RefusedError.
            SyncError: the answer breaks its form.
        """
        ...

    def queries(self, revision: int, wait_s: float) -> dict[str, Any] | None:
        """The signed query set, once its revision is over `revision`; None when it is not after `wait_s`.

        Raises: as `exchange`.
        """
        ...

    def close(self) -> None:
        """End what is under way, with LinkError, and all that comes after."""
        ...


class BundleCarrier(Protocol):
    """The way that bundles take, for one thread at a time. They travel over HTTPS alone, whatever carries the hits."""

    def order(self, revision: int) -> dict[str, Any] | None:
        """The signed order for this device, once its revision is over `revision`; None when it is not.

        Raises: as `Carrier.exchange`.
        """
        ...

    def part(self, digest: str, name: str, offset: int, most: int, timeout_s: float) -> bytes:
        """Bytes of a file of the bundle that is ordered, from `offset` on: `most`, fewer only at the file's end.

        Raises: as `Carrier.exchange`.
        """
        ...

    def close(self) -> None:
        """As `Carrier.close`."""
        ...
