"""`python -m modeltiers.controllers`: read the settings, connect, run; with `check URL`, ask one that runs."""

from __future__ import annotations

import asyncio
import logging
import sys

from pydantic import ValidationError

from modeltiers.controllers.check import check
from modeltiers.controllers.config import BadSettings, Process, load
from modeltiers.controllers.program import Operator
from modeltiers.kube.session import BadConnection, connect


async def _run() -> None:
    process = Process()
    settings = load(process.settings)
    connection = await connect(process.kubeconfig)
    await Operator(process, settings, connection).run()


def main() -> int:
    """Exit status 0 after an orderly stop, 2 when it cannot start; the reason is the last line."""
    match sys.argv[1:]:
        case []:
            pass
        case ["check", url]:
            return check(url)
        case _:
            sys.stderr.write(
                "usage: python -m modeltiers.controllers [check URL]; settings come from the environment\n"
            )
            return 2
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs URLs
    try:
        # Not uvloop: with it, after an API server died, watches ended with "File descriptor is used by transport"
        # (as in MagicStack/uvloop issue 653, which is open).
        asyncio.run(_run())
    except (BadSettings, BadConnection, ValidationError) as fault:
        sys.stderr.write(f"{fault}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
