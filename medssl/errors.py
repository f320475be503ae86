"""What a user can mend. Each error is one line: what is wrong, where, what to do. The command line exits with 2."""


class UserError(Exception):
    """Base of every error that is shown as one line, without a traceback."""


class StudyError(UserError):
    """The study file, the pipeline file or an override is wrong: `file: key: what is wrong, what is allowed`."""


class CardError(UserError):
    """A data card is wrong, or the data does not look as its card says."""


class DataError(UserError):
    """The data cannot carry the study: an empty archive, a class without patients, a leaking split."""


class StoreError(UserError):
    """The pixel store or another file of the work folder cannot be written or does not fit its description."""


class WeightsError(UserError):
    """Weights are missing, are other weights than announced, or do not fit the network."""


class CheckpointError(UserError):
    """A checkpoint or an encoder belongs to something else or cannot be read."""


class CollapseError(UserError):
    """A pretraining has collapsed or diverged."""


class LaunchError(UserError):
    """The processes of a run do not find each other, or one of them has died."""


class GridError(UserError):
    """Some cells of a grid have failed, or those who do the work cannot be reached. What is finished is kept."""


class CapacityError(UserError):
    """A step needs more memory than there is."""


class TrackingError(UserError):
    """The tracker refuses what it is asked, for a reason other than being out of reach."""
