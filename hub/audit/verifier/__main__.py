"""`python -m hub.audit.verifier EXPORT`, or the packed file: prints one line a check, exits 1 where one is red."""

import sys

from .report import main

if __name__ == "__main__":
    sys.exit(main())
