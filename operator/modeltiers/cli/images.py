"""`modeltiers images`: every image that an installation runs, for whoever copies them into a network of their own.

Read from the values of the Helm chart, as `helm install -f` takes them. It asks no registry and no cluster; what tiers
name themselves (`spec.serving.image`) is in the tiers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import yaml
from pydantic import ValidationError

from modeltiers import __version__
from modeltiers.api.values import ImageParts, Values
from modeltiers.api.values_schema import defaults


def merged(*files: Mapping[str, object]) -> Values:
    """Values as Helm merges them: files over the chart's defaults, later ones over earlier ones."""
    whole: Mapping[str, object] = {**defaults(Values), "settings": {}}
    for one in files:
        whole = _over(whole, one)
    return Values.model_validate(whole)


def images_of(values: Values) -> dict[str, str]:
    """The images by what they are for; what has no repository, and is in no setting, is left out."""
    block, settings = values.images, values.settings
    composed = {
        "operator": _name(block.operator, block.registry),
        "router": settings.router.image or _name(block.router, block.registry),
        "distill": settings.distill.image or _name(block.distill, block.registry),
        "train": settings.distill.train_image or _name(block.train, block.registry),
        "engine": _engine(values),
    }
    profiles = {f"profile {name}": one.image for name, one in sorted(settings.engine_profiles.items()) if one.image}
    return {purpose: image for purpose, image in {**composed, **profiles}.items() if image}


def _engine(values: Values) -> str:
    """The default engine: of the settings if they name one, else of the block, else the program's own."""
    settings, block = values.settings, values.images
    if "engine" in settings.model_fields_set and "image" in settings.engine.model_fields_set:
        return settings.engine.image
    return _name(block.engine, block.registry) or settings.engine.image


def _name(parts: ImageParts, registry: str) -> str:
    """An image by its parts, as the chart's templates put it together."""
    if not parts.repository:
        return ""
    name = "/".join(filter(None, (registry or parts.registry, parts.repository)))
    return f"{name}@{parts.digest}" if parts.digest else f"{name}:{parts.tag or __version__}"


@click.command()
@click.option(
    "-f",
    "--values",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A values file of the Helm chart; later ones win. The chart's defaults without any.",
)
@click.option("-o", "--output", type=click.Choice(["name", "json"]), default="name", help="One name a line, or JSON.")
def images(files: tuple[Path, ...], output: str) -> None:
    """List every image that an installation with these values runs."""
    try:
        found = images_of(merged(*map(_read, files)))
    except ValidationError as fault:
        lines = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in fault.errors()]
        raise click.ClickException("\n".join([f"{', '.join(map(str, files))} cannot be values:", *lines])) from None
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    for image in dict.fromkeys(found.values()):
        click.echo(image)
    if any(image.startswith("localhost/") for image in found.values()):
        click.echo("localhost/ is no registry: build these from images/, and set images.registry", file=sys.stderr)


def _read(path: Path) -> dict[str, object]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as fault:
        raise click.ClickException(f"{path}: not readable as YAML: {fault}") from None
    if not isinstance(found or {}, dict):
        raise click.ClickException(f"{path}: a map of values is wanted")
    return found or {}


def _over(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """Maps are merged and everything else is replaced."""
    whole = dict(below)
    for name, value in above.items():
        old = whole.get(name)
        whole[name] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return whole
