"""The base class of the sections of a sweep file."""

from pydantic import BaseModel, ConfigDict


class SweepSection(BaseModel):
    """A frozen model that refuses unknown keys and does not convert types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
