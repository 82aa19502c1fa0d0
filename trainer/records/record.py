"""The base class of records, and their version."""

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 3


class Record(BaseModel):
    model_config = ConfigDict(
        extra="ignore", frozen=True, allow_inf_nan=False
    )  # ignore: a newer version's records load
