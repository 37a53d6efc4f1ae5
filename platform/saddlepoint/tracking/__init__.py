"""What MLflow remembers of a sweep. The only room that imports mlflow.

spool      what is to be said, on local disk first: the whole history, and how much of it has arrived
tracker    the face of the room for a running sweep: appends to the spool and returns at once
sender     the one thread that empties the spool, through outages, for as long as it takes
delivery   an event as calls of MLflow, such that saying it twice changes nothing
store      tracking URIs, the local database, connections, errors in words
registry   generators as registered models, their versions and aliases
query      what is tracked, as plain data
ui         the command line that shows it
"""

import logging
import os

_QUIET = {  # read by mlflow when it is imported, or at each call; what the user has set stands
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",  # a uv.lock in the working folder is not part of a generator
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the sender has its own patience
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",  # seconds
}
for _name, _value in _QUIET.items():
    os.environ.setdefault(_name, _value)

logging.getLogger(__name__).addHandler(logging.NullHandler())  # otherwise warnings would go to stderr
