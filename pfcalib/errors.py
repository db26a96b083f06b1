"""The errors that pfcalib raises on purpose: each message names what was wrong, where, and what to
do.
"""


class PfcalibError(Exception):
    """Base of all errors that a user can mend; the command line prints it as one line and exits
    with 1.
    """


class BadFileError(PfcalibError):
    """A file cannot be used: the message names file, tree, branch and entry, and what was
    expected.
    """


class ConfigError(PfcalibError):
    """A parameter is unknown, missing or out of range; the message names it and the allowed
    values.
    """


class ValidationError(PfcalibError):
    """A model, sample or report does not pass its checks; the message names the worst offender."""


class StorageError(PfcalibError, OSError):
    """A disk is full or must not be written; the message names the file and what to do."""

    def __str__(self) -> str:
        return str(self.strerror or OSError.__str__(self))
