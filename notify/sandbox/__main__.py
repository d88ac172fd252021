"""`python -m notify.sandbox`: serves until it is stopped."""

from __future__ import annotations

import uvicorn

from notify.sandbox.app import create_app
from notify.sandbox.settings import SandboxSettings


def main() -> None:
    settings = SandboxSettings()  # from the environment
    # Requests carry addresses and texts, so none is logged; a call that hangs on request does not hold up the end.
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
