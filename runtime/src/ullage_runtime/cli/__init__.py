"""The `ullage` command."""


def main() -> None:
    """Run the `ullage` command."""
    from ullage_runtime.cli.commands import app

    app()
