"""What a server of ours tells of itself on `/metrics`."""

from collections.abc import Iterator

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def samples(url: str, *names: str) -> Iterator[Sample]:
    """Yield the samples of metrics, which are named without their suffixes."""
    text = httpx.get(f"{url}/metrics", timeout=30).raise_for_status().text
    for metric in text_string_to_metric_families(text):
        if metric.name in names:
            yield from metric.samples
