"""`python -m capicorn`."""

from __future__ import annotations

from capicorn.cli import main

if __name__ == "__main__":
    main(prog_name="capicorn")
