"""The four dashboards: tiers, routing, distillation, and the operator itself.

Every query is asked of a real Prometheus over real scrapes in `tests/monitoring` and `tests/cluster`.
"""

from __future__ import annotations

from typing import Final

from modeltiers.render.dashboards.distillation import DISTILLATION
from modeltiers.render.dashboards.operator import OPERATOR
from modeltiers.render.dashboards.routing import ROUTING
from modeltiers.render.dashboards.tiers import TIERS

DASHBOARDS: Final = {"tiers": TIERS, "routing": ROUTING, "distillation": DISTILLATION, "operator": OPERATOR}
"""By the name of the file."""
