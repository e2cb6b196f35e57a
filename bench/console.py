"""Where benchmarks print: tables keep their width when the output is piped."""

import sys
from typing import Final

from rich.console import Console

_PIPED_WIDTH: Final = 180

console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
