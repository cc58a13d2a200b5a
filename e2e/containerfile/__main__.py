"""`make images`: the images of this project from their Containerfiles, each with its bill of materials.

In dist/: images/NAME.tar, an OCI archive; NAME.cdx.json, its bill; images.txt, what each is. With --push they go to a
registry, each with its bill attached.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from e2e.cluster import recipes
from e2e.cluster.report import HarnessError, say
from e2e.containerfile import bases, bom, build, registry, rootfs
from modeltiers import __version__


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="make images", description=__doc__)
    top.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(build.NAMES)}; all without one")
    top.add_argument("--dist", type=Path, default=recipes.ROOT / "dist", help="where they are written")
    top.add_argument(
        "--bases",
        choices=("pinned", "debian"),
        default="pinned",
        help="what the Containerfiles name, or the same packages of Debian where no registry of images is reached",
    )
    top.add_argument("--push", metavar="REGISTRY/PATH", default="", help="where to push them, as PATH/NAME:VERSION")
    return top


def main(argv: list[str] | None = None) -> int:
    """Build what is asked for; returns the exit code."""
    options = parser().parse_args(argv)
    names = options.names or build.NAMES
    if unknown := set(names) - set(build.NAMES):
        say(f"error: no image is called {', '.join(sorted(unknown))}; there are {', '.join(build.NAMES)}")
        return 2
    home = options.dist.absolute() / "images"
    try:
        stand_ins = bases.write(home / "bases") if options.bases == "debian" else None
        lines = [_one(name, home, options.dist, stand_ins, options.push) for name in names]
    except HarnessError as error:
        say(f"error: {error}")
        return 1
    finally:
        shutil.rmtree(home / "bases", ignore_errors=True)
    (options.dist / "images.txt").write_text("".join(f"{line}\n" for line in lines))
    return 0


def _one(name: str, home: Path, dist: Path, stand_ins: dict[str, Path] | None, push: str) -> str:
    say(f"building {name} from images/{name}.Containerfile")
    made = build.build(name, home, tag=__version__, bases=stand_ins)
    bill = bom.write(made, __version__, dist / f"{name}.cdx.json")
    image = rootfs.read(made.archive)
    digest = image.digest
    where = registry.push(made.archive, digest, bill, f"{push}/{name}:{__version__}") if push else f"{name}@{digest}"
    line = f"{where} {image.compressed / 1e6:.0f} MB compressed, {image.size / 1e6:.0f} MB of files"
    print(f"{line}; {bill}", flush=True)
    return line


if __name__ == "__main__":
    sys.exit(main())
