"""The operator's settings, from `ULLAGE_OPERATOR_*` environment variables.

What whoever installs it must know besides:

- It listens on `probe_port` (`/healthz`, for liveness, readiness and start-up) and on
  `metrics_port` (Prometheus), and on nothing else.
- It calls the API server, and runtime pods on their port named `internal`. A pool's NetworkPolicy
  lets in pods of the operator's namespace that carry `pod_labels`.
- Its rights are `adapters.rules.REQUIRED_RULES` in the namespaces it looks after, all of them or
  those of `watch_namespaces`, and `adapters.rules.own_rules` in its own.
- It writes nothing on disk.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _own_namespace() -> str:
    return NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.is_file() else "ullage-system"


class OperatorSettings(BaseSettings):
    """What can be set; lists and maps are written as JSON."""

    model_config = SettingsConfigDict(env_prefix="ULLAGE_OPERATOR_", frozen=True)

    namespace: Annotated[
        str, Field(default_factory=_own_namespace, description="Namespace the operator runs in.")
    ]
    profiles_config_map: Annotated[
        str, Field(description="ConfigMap, in that namespace, whose pools.yaml defines the pools.")
    ] = "ullage-pools"
    key_secret: Annotated[
        str, Field(description="Secret, in that namespace, with the key that tokens derive from.")
    ] = "ullage-operator-key"  # noqa: S105 - a name
    pod_labels: Annotated[
        dict[str, str], Field(description="Labels by which pools' NetworkPolicies know us.")
    ] = {"app.kubernetes.io/part-of": "ullage", "app.kubernetes.io/component": "operator"}
    watch_namespaces: Annotated[
        list[str], Field(description="Namespaces to look after; empty for all of them.")
    ] = []
    workers: Annotated[int, Field(ge=1, le=64, description="Reconciles at the same time.")] = 4
    listen_address: Annotated[str, Field(description="Address of the probe and of metrics.")] = (
        "0.0.0.0"
    )
    probe_port: Annotated[int, Field(ge=1, le=65535, description="Port of /healthz.")] = 8080
    metrics_port: Annotated[int, Field(ge=0, le=65535, description="Port of /metrics.")] = 9090
    stuck_seconds: Annotated[
        float, Field(gt=0, description="Age of the oldest due key at which liveness fails.")
    ] = 300.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="Least level logged.")
    ] = "info"
    log_format: Annotated[
        Literal["json", "pretty"], Field(description="JSON for machines, pretty for people.")
    ] = "json"
