"""The base of every record that a job writes, and the version of the records."""

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 2


class Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)  # newer files load in older readers
