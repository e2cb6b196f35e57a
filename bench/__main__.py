"""`python -m bench QUESTION`: each command answers one question and keeps what it found."""

import typer

from bench import (
    decision,
    embeddings,
    estimates,
    ingestion,
    latency,
    overhead,
    reindex,
    rest,
    retrieval,
    shortage,
    soak,
    swap,
    throughput,
    warm,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("throughput")(throughput.main)
app.command("shortage")(shortage.main)
app.command("latency")(latency.main)
app.command("overhead")(overhead.main)
app.command("embeddings")(embeddings.main)
app.command("estimates")(estimates.main)
app.command("decision")(decision.main)
app.command("ingestion")(ingestion.main)
app.command("reindex")(reindex.main)
app.command("rest")(rest.main)
app.command("retrieval")(retrieval.main)
app.command("soak")(soak.main)
app.command("swap")(swap.main)
app.command("warm")(warm.main)

if __name__ == "__main__":
    app()
