"""The errors a user can cause and mend; the command line prints them and exits with 2."""


class UserError(Exception):
    """Bad input: names the field or file, what was received, what is expected, and the fix."""


class DataError(UserError):
    """A raw file, a row or a store that cannot be used as it is."""


class ConfigError(UserError):
    """A configuration value, or a combination of them, that cannot be run."""


class BusyError(UserError):
    """A run or a study that another process is working on."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, or made by another configuration."""


class TrainingError(UserError):
    """A run that cannot go on: its loss is not finite."""
