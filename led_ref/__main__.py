"""`python -m led_ref` is the command `led-ref`."""

import sys

from led_ref.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
