"""`python -m fastvoc` is `fastvoc`."""

import sys

from fastvoc.cli import main

if __name__ == "__main__":
    sys.exit(main())
