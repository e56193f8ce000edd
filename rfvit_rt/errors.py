# SPDX-License-Identifier: Apache-2.0
"""Every error a user can cause or meet. Each message says what came, what was expected and what to do."""


class RfvitError(Exception):
    """Base of all errors that the command line shows as one line."""


class RecordingError(RfvitError):
    """A recording is missing, damaged, or of a kind that cannot be read."""


class WireError(RfvitError):
    """Bytes from a socket do not follow the format they were expected in."""


class StreamError(RfvitError):
    """A live source cannot be opened, went silent, or sent samples that cannot be used."""


class SpecMismatch(RfvitError):  # noqa: N818  (reads as the fact it states)
    """A source does not fit what the model was trained for."""


class ModelError(RfvitError):
    """A model file is missing, damaged, or does not reproduce its golden output here."""


class EngineError(RfvitError):
    """An inference engine cannot run on this machine."""


class OutputError(RfvitError):
    """A result cannot be written where it was asked for."""
