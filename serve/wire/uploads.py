"""Bodies of uploads."""

from typing import Literal

from pydantic import Field

from serve.wire.base import Wire


class NewUpload(Wire):
    """`POST /v1/uploads`: a place to send one file to."""

    filename: str = Field(min_length=1, max_length=255, examples=["first-frame.png"])
    type: Literal["ephemeral"] = "ephemeral"
