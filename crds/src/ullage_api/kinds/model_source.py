"""Where a model and its adapters come from, and what their files must be."""

from typing import Annotated, Any, Final

from pydantic import Field

from ullage_api.kinds.base import KubeModel, rule, validations
from ullage_api.kinds.sampling import NUMBER_PATTERN

SCHEMES: Final = ("file:", "pvc://", "http://", "https://", "hf://", "s3://", "oci://")
"""Where a model may come from."""

SCHEME_NAMES: Final = f"{', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}"

URI_FORMS: Final = {
    "pvc://": (
        "^pvc://[a-z0-9]([-.a-z0-9]*[a-z0-9])?/.+$",
        "pvc://<claim>/<file or folder>",
    ),
    "hf://": (
        "^hf://[^/@]+/[^/@]+(/[^@]*)?(@[-._A-Za-z0-9]+)?$",
        "hf://<owner>/<repository>[/<file, or folder/>][@<revision>]",
    ),
    "s3://": (
        "^s3://[a-z0-9][-.a-z0-9]{1,62}(/.*)?$",
        "s3://<bucket>/<object, or prefix/>",
    ),
    "oci://": (
        (
            "^oci://[^/@#]+/[a-z0-9][-._/a-z0-9]*"
            "(:[A-Za-z0-9_][-._A-Za-z0-9]*|@sha256:[0-9a-f]{64})?(#.+)?$"
        ),
        "oci://<registry>/<repository>[:<tag>, or @sha256:<digest>][#<file>]",
    ),
}
"""What an address of a scheme must look like: as a pattern, and in words."""


ADAPTER_NAME_PATTERN: Final = "^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$"
"""No colon and no slash, so that a name with an adapter can be taken apart."""


MAX_ADAPTER_SCALE: Final = 8


def _uri_rules(field: str) -> dict[str, Any]:
    """Return the rules of an address, with messages that name its field."""
    return validations(
        rule(
            " || ".join(f"self.startsWith('{scheme}')" for scheme in SCHEMES),
            f"{field} must begin with {SCHEME_NAMES}",
        ),
        *(
            rule(
                f"!self.startsWith('{scheme}') || self.matches('{pattern}')",
                f"{field} with {scheme} must be {form}",
            )
            for scheme, (pattern, form) in URI_FORMS.items()
        ),
        rule(
            r"!self.contains(' ')",
            f"{field} must not contain spaces; write them as %20",
        ),
    )


def _sha256_rules(field: str) -> dict[str, Any]:
    """Return the rule of a digest, with a message that names its field."""
    return validations(
        rule(
            "self.matches('^[0-9a-f]{64}$')",
            f"{field} must be 64 lower-case hexadecimal digits",
        )
    )


class AdapterSource(KubeModel):
    """A LoRA adapter: a small file that changes how the model answers, chosen per request."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=63,
            description="What clients add to the model's name, after a colon: <model>:<adapter>.",
            json_schema_extra=validations(
                rule(
                    f"self.matches('{ADAPTER_NAME_PATTERN}')",
                    "model.adapters.name must be letters, digits and any of . _ - in between",
                )
            ),
        ),
    ]
    uri: Annotated[
        str,
        Field(
            min_length=6,
            max_length=2048,
            description=(
                "Address of the adapter's GGUF file, or for a model in safetensors of its folder, "
                "in the same forms as model.uri."
            ),
            json_schema_extra=_uri_rules("model.adapters.uri"),
        ),
    ]
    sha256: Annotated[
        str | None,
        Field(
            max_length=64,
            description="SHA-256 of the file in lower-case hexadecimal; checked before first use.",
            json_schema_extra=_sha256_rules("model.adapters.sha256"),
        ),
    ] = None
    scale: Annotated[
        str | None,
        Field(
            max_length=8,
            description=(
                "How strongly it is applied, '0' to '8', on top of the file's own alpha. Unset: 1."
            ),
            json_schema_extra=validations(
                rule(
                    f"self.matches('{NUMBER_PATTERN}') && double(self) <= {MAX_ADAPTER_SCALE}.0",
                    f"model.adapters.scale must be a number from '0' to '{MAX_ADAPTER_SCALE}' with "
                    "at most 4 decimals, such as '1.0'",
                )
            ),
        ),
    ] = None


class ModelSource(KubeModel):
    """Where the model's file comes from and what it must be."""

    uri: Annotated[
        str,
        Field(
            min_length=6,
            max_length=2048,
            description=(
                "Address of the model's file or folder: https://…, http://… (where the pool allows "
                "it), hf://<owner>/<repository>/<file>@<revision>, s3://<bucket>/<object>, "
                "oci://<registry>/<repository>:<tag>, pvc://<claim>/<path>, file:///<path>, or "
                "file:<name> for what lies beneath the pool's model folders."
            ),
            json_schema_extra=_uri_rules("model.uri"),
        ),
    ]
    sha256: Annotated[
        str | None,
        Field(
            max_length=64,
            description="SHA-256 of the file in lower-case hexadecimal; checked before first use.",
            json_schema_extra=_sha256_rules("model.sha256"),
        ),
    ] = None
    adapters: Annotated[
        list[AdapterSource] | None,
        Field(
            max_length=16,
            description=(
                "LoRA adapters of the model; a client chooses one as <model>:<adapter>. They "
                "share the model's memory and its requests' context."
            ),
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = None
