"""Capicorn where other code says `import uvicorn`.

    python -m capicorn.as_uvicorn COMMAND [ARGUMENT...]
    import capicorn.as_uvicorn                      # before whoever imports uvicorn

puts `uvicorn` and its public submodules, made of our objects, into `sys.modules`. COMMAND is a console script, a
Python file, `-m MODULE` or `-c CODE`; it runs in this process. To give a command is to ask for Capicorn, whether
uvicorn is installed or not. A mere import never hides an installed uvicorn, but warns and does nothing; there
`install(shadow=True)` or CAPICORN_SHADOW_UVICORN=1 asks for it.
"""

from __future__ import annotations

import os
import sys
import warnings

from capicorn.uvicorn_names import active, install, run_command

__all__ = ["active", "install"]

if __name__ == "__main__":
    sys.exit(run_command(sys.argv[1:]))

if not install(shadow=os.environ.get("CAPICORN_SHADOW_UVICORN", "") not in ("", "0")):
    warnings.warn(
        "uvicorn is installed, so that importing it gives uvicorn; call capicorn.as_uvicorn.install(shadow=True) or set"
        " CAPICORN_SHADOW_UVICORN=1 to have Capicorn in its place",
        stacklevel=2,
    )
