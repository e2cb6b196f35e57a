"""How a model chooses its tokens when a request does not say."""

from typing import Annotated, Final

from pydantic import Field

from ullage_api.kinds.base import KubeModel, rule, validations

MAX_TEMPERATURE: Final = 2
NUMBER_PATTERN: Final = "^[0-9]([.][0-9]{1,4})?$"
"""A number as text: Kubernetes' API wants no floats, whose spelling does not survive JSON."""


class SamplingDefaults(KubeModel):
    """What a request that leaves them open gets; a change takes effect at once."""

    temperature: Annotated[
        str | None,
        Field(
            max_length=8,
            description="How freely tokens are chosen, '0' to '2'; 0 is the likeliest. Unset: 0.7.",
            json_schema_extra=validations(
                rule(
                    f"self.matches('{NUMBER_PATTERN}') && double(self) <= {MAX_TEMPERATURE}.0",
                    "serving.defaults.temperature must be a number from '0' to '2' with at most 4 "
                    "decimals, such as '0.7'",
                )
            ),
        ),
    ] = None
    top_p: Annotated[
        str | None,
        Field(
            max_length=8,
            description=(
                "Share of probability that tokens are chosen from, above '0' to '1'. Unset: 1."
            ),
            json_schema_extra=validations(
                rule(
                    f"self.matches('{NUMBER_PATTERN}') && double(self) > 0.0 "
                    "&& double(self) <= 1.0",
                    "serving.defaults.topP must be a number above '0' and up to '1' with at most 4 "
                    "decimals, such as '0.95'",
                )
            ),
        ),
    ] = None
    max_tokens: Annotated[
        int | None,
        Field(
            ge=1,
            le=4194304,
            description=(
                "Longest answer in tokens. Unset: what the context has room for; 16 for "
                "completions, as OpenAI has it."
            ),
        ),
    ] = None
