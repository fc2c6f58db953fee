"""`python -m agent.config example|reference` prints the generated files."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from agent.config.showing import example, reference


def main(arguments: Sequence[str]) -> int:
    """Print the example or the reference."""
    texts = {"example": example, "reference": reference}
    if len(arguments) != 1 or arguments[0] not in texts:
        print("usage: python -m agent.config example|reference", file=sys.stderr)
        return 2
    sys.stdout.write(texts[arguments[0]]())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
