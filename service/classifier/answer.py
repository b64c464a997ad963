"""The one tool that Claude has to call, and the model that checks what it was called with."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.levels import Level

TOOL_NAME: Final = "classify_engagement"
MAX_LENGTH: Final = 600

Explanation = Annotated[str, StringConstraints(min_length=1, max_length=MAX_LENGTH)]


class Answer(BaseModel):
    """What the tool is called with. Nothing may be missing, nothing may be added."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Annotated[Level, Field(description="The level, one of those to choose from")]
    admin_explanation: Annotated[
        Explanation,
        Field(description=f"For the organisation's staff; at most {MAX_LENGTH} characters"),
    ]
    user_explanation: Annotated[
        Explanation,
        Field(description=f"For the member, warm and specific; at most {MAX_LENGTH} characters"),
    ]


def tool() -> dict[str, Any]:
    """The tool as the Messages API wants it; strict mode knows no lengths, `Answer` does."""
    fields = Answer.model_fields
    properties: dict[str, Any] = {
        name: {"type": "string", "description": field.description} for name, field in fields.items()
    }
    properties["level"]["enum"] = [level.value for level in Level]
    return {
        "name": TOOL_NAME,
        "description": "Record how engaged the member is, with both explanations.",
        "strict": True,
        "input_schema": {
            "type": "object",
            "properties": properties,
            "required": list(fields),
            "additionalProperties": False,
        },
    }
