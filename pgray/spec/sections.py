"""What every section of a sweep file has in common: unknown keys are refused, values are taken as written, none changes."""

from pydantic import BaseModel, ConfigDict


class SweepSection(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
