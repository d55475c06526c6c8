"""Every error that tagclip raises on purpose, as one tree.

    TagclipError                what a user can act on; the command line prints it and exits with 1
    ├── SourceError             a video, folder, image or box file that is missing, broken or empty
    ├── QueryError              a description that is empty, too long or says nothing the tokenizer knows
    ├── DataError               annotations or data folders that break the contract of docs/data.md
    ├── ConfigError             a configuration key or value that is unknown or out of range
    ├── CheckpointError         a checkpoint that is missing, incomplete or does not fit its config
    ├── TrainingError           a training run whose numbers are no longer finite
    ├── MissingExtraError       the command needs packages of an extra that is not installed
    ├── OutputError             the place to write to exists already, is not writable or is full
    ├── BackgroundError         no background to measure scores by, or one of another encoder
    ├── StoreError              what a device keeps is damaged, of a newer tagclip, or no store at all
    │   ├── StoreFullError          there is no room, even after the oldest made some
    │   └── StoreEncoderError       tracks that another encoder embedded
    ├── HitError                a hit that breaks its form, or a file of hits that is damaged or none
    ├── SyncError               what came over the link breaks its form, or the other end refuses
    │   ├── LinkError               the station is out of reach, or cannot now
    │   ├── CredentialError         the station does not know this device
    │   └── RefusedError            the station will never take this
    ├── MachineError            the machine has no room to go on
    ├── KeyFileError            a key that is missing, unreadable or of another kind than asked for
    ├── EngineError             an inference engine that is absent or refuses the graph
    │   └── EngineMismatchError     an engine built by another runtime, for another GPU or bundle, or damaged
    ├── ParityError             exported numbers that differ from the checkpoint's beyond the budget
    └── BundleError             a bundle that cannot be used
        ├── BundleMissingError      no such folder, or no bundle.json in it
        ├── BundleManifestError     bundle.json cannot be read, or a field is absent, of the wrong type or unsafe
        ├── BundleVersionError      made by a newer tagclip than this one
        ├── BundleIntegrityError    a file is missing, truncated, altered or not listed in SHA256SUMS
        ├── BundleSignatureError    the key that the device trusts did not sign it
        ├── BundleSelfTestError     the probe's vectors do not come out of this engine
        └── BundleSlotsError        a device's slots hold no bundle that can be used

Messages say what was expected, what was found and the way out.
"""

from __future__ import annotations


def one_line(text: str) -> str:
    """A library's message on one line, without what could rewrite a terminal: it quotes names out of files."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


class TagclipError(Exception):
    """Base of everything a user can act on."""


class SourceError(TagclipError):
    """A video, folder, image or box file is missing, broken or empty."""


class QueryError(TagclipError):
    """A description is empty, too long, or holds no known word."""


class DataError(TagclipError):
    """Annotations or a data folder break the contract."""


class ConfigError(TagclipError):
    """A configuration key or value is unknown or out of range."""


class CheckpointError(TagclipError):
    """A checkpoint is missing, incomplete or does not fit its config."""


class TrainingError(TagclipError):
    """A training run's numbers are no longer finite."""


class MissingExtraError(TagclipError):
    """The command needs packages of an extra that is not installed."""


class OutputError(TagclipError):
    """The place to write to exists already, is not writable or is full."""


class BackgroundError(TagclipError):
    """There is no background to measure scores by, or it is of another encoder."""


class StoreError(TagclipError):
    """What a device keeps is damaged, of a newer tagclip, or no store at all."""


class StoreFullError(StoreError):
    """There is no room, even after the oldest tracks made some."""


class StoreEncoderError(StoreError):
    """Tracks that another encoder embedded: their vectors mean nothing to this one."""


class HitError(TagclipError):
    """A hit breaks its form, or a file of hits is damaged or none."""


class SyncError(TagclipError):
    """What came over the link breaks its form, or the other end refuses."""


class LinkError(SyncError):
    """The station is out of reach or cannot now; the same is to be tried again.

    Attributes:
        timed_out: no answer came in time.
        retry_s: seconds that the station asks to wait; None when it asks nothing.
    """

    def __init__(self, text: str, *, timed_out: bool = False, retry_s: float | None = None) -> None:
        super().__init__(text)
        self.timed_out, self.retry_s = timed_out, retry_s


class CredentialError(SyncError):
    """The station does not know this device, or no longer; a person has to enrol it anew."""


class RefusedError(SyncError):
    """The station will never take these bytes, however often they are sent."""


class MachineError(TagclipError):
    """The machine has no room to go on: memory."""


class KeyFileError(TagclipError):
    """A key is missing, unreadable or of another kind than asked for."""


class EngineError(TagclipError):
    """An inference engine is absent or refuses the graph."""


class EngineMismatchError(EngineError):
    """An engine was built by another runtime, for another GPU or another bundle, or is damaged."""


class ParityError(TagclipError):
    """Exported numbers differ from the checkpoint's beyond the budget."""


class BundleError(TagclipError):
    """A bundle cannot be used."""


class BundleMissingError(BundleError):
    """No such folder, or no bundle.json in it."""


class BundleManifestError(BundleError):
    """bundle.json cannot be read, or a field is absent, of the wrong type or unsafe."""


class BundleVersionError(BundleError):
    """The bundle was made by a newer tagclip."""


class BundleIntegrityError(BundleError):
    """A file is missing, truncated, altered or not listed in SHA256SUMS."""


class BundleSignatureError(BundleError):
    """The key that the device trusts did not sign the bundle."""


class BundleSelfTestError(BundleError):
    """The probe's vectors do not come out of this engine."""


class BundleSlotsError(BundleError):
    """A device's slots hold no bundle that can be used."""
