"""Vocabulary of a policy's conditions: which there are, in which order, and every reason with its way out.

What a condition says of a policy is decided in `policy_verdict`; the reference page is made from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from modeltiers.domain import conditions
from modeltiers.domain.conditions import Reason

COMPILED: Final = "Compiled"
TIERS_READY: Final = "TiersReady"
LIVE: Final = "Live"
ENTRY: Final = "Entry"
KEYS_FOUND: Final = "KeysFound"
EXPORTED: Final = "Exported"
DOUBTFUL: Final = "Doubtful"

ORDER: Final = (
    conditions.ACCEPTED,
    COMPILED,
    TIERS_READY,
    LIVE,
    KEYS_FOUND,
    ENTRY,
    EXPORTED,
    conditions.READY,
    conditions.RECONCILING,
    conditions.STALLED,
    DOUBTFUL,
)
_WAIT: Final = "Nothing to do: it passes."
_SEE_LIVE: Final = "See the condition Live."
_TIER_WAY_OUT: Final = "Look at the ModelTier that is named: `kubectl get mt`."
REASONS: Final[tuple[Reason, ...]] = (
    Reason("Valid", conditions.ACCEPTED, "The spec is valid and allowed."),
    Reason(
        "InvalidSpec",
        conditions.ACCEPTED,
        "The stored object is not one that this version understands.",
        "Correct the field that is named.",
    ),
    Reason(
        "ModelNameTaken",
        conditions.ACCEPTED,
        "An older policy of the namespace has the same model name and keeps it.",
        "Choose another spec.model, or delete the other policy.",
    ),
    Reason(
        "LadderInCircle",
        conditions.ACCEPTED,
        "An external tier of the ladder leads back to this policy.",
        "Take that tier off one of the ladders.",
    ),
    Reason("Compiled", COMPILED, "There is a table; the message has its version."),
    Reason("NotCompiled", COMPILED, "The spec is not accepted, or was not compiled yet.", _WAIT),
    Reason(
        "TierNotFound",
        COMPILED,
        "A tier on the ladder does not exist, or not any more (also on TiersReady).",
        "Create it, or take it off spec.tiers.",
    ),
    Reason("TierNotAccepted", COMPILED, "A tier on the ladder has a spec that is not accepted.", _TIER_WAY_OUT),
    Reason(
        "DataWouldLeave",
        COMPILED,
        "Data that never leaves the cluster could reach a tier outside.",
        "Take that tier off the ladder, or change dataClass.",
    ),
    Reason(
        "NeedsGateway",
        COMPILED,
        "The ladder begins at an external tier, which has no pod that could take requests.",
        "Set spec.placement to Gateway.",
    ),
    Reason(
        "InvalidPolicy",
        COMPILED,
        "The router would refuse the table: a pattern, a schema or a combination.",
        "Correct the field that is named.",
    ),
    Reason(
        "DistillJobNotFound",
        COMPILED,
        "The DistillJob whose threshold is wanted does not exist.",
        "Create it, or remove accept.confidence.thresholdFrom.",
    ),
    Reason(
        "TableTooLarge",
        COMPILED,
        "The table is larger than 200,000 bytes.",
        "Shorten the field that is named.",
    ),
    Reason(
        "ShelfFull",
        COMPILED,
        "The tables of all policies over one tier do not fit into its ConfigMap.",
        "Shorten spec.classify of these policies, or spread them over other tiers.",
    ),
    Reason("AllReady", TIERS_READY, "Every tier on the ladder answers."),
    Reason("SomeAsleep", TIERS_READY, "A tier is scaled to zero, as its spec asks; the others answer."),
    Reason("TiersNotKnown", TIERS_READY, "The tiers were not looked at yet.", _WAIT),
    Reason("TierDeleting", TIERS_READY, "A tier on the ladder is being deleted.", "Take it off spec.tiers."),
    Reason("TierStalled", TIERS_READY, "Something stands in the way of a tier.", _TIER_WAY_OUT),
    Reason("TierNotReady", TIERS_READY, "A tier is on the way.", _WAIT),
    Reason("LiveEverywhere", LIVE, "Every router serves the present table."),
    Reason("Spreading", LIVE, "Some routers still serve the table before.", _WAIT),
    Reason("NoTable", LIVE, "The present spec has no table.", "See the condition Compiled."),
    Reason("NoRouters", LIVE, "No router is there yet.", "Scale a tier of the ladder up if it stays."),
    Reason(
        "NoRouterImage",
        LIVE,
        "The settings name no image for routers, so that policies have no effect.",
        "Have an administrator set router.image.",
    ),
    Reason(
        "RoutersUnreachable",
        LIVE,
        "Some routers could not be asked, so that nothing is known of them.",
        "Let the operator reach the admin port of the pods.",
    ),
    Reason(
        "TableRefused",
        LIVE,
        "A router does not take the table; the message has its words.",
        "Restart its tier for a newer router, or remove the field.",
    ),
    Reason("AllFound", KEYS_FOUND, "The routers have the keys that the policy needs."),
    Reason(
        "KeysNotKnown",
        KEYS_FOUND,
        "No router that has the table could be asked; the operator itself may read no Secret.",
        _SEE_LIVE,
    ),
    Reason(
        "KeyMissing",
        KEYS_FOUND,
        "Routers do not have a key that `spec.access` names: whoever shows it is refused.",
        "Add it to `keys.json` in the Secret `modeltiers-keys`; nodes bring a changed Secret within about a minute.",
    ),
    Reason(
        "HopKeyMissing",
        KEYS_FOUND,
        "Routers have no key to sign with, so that no other tier takes what they forward.",
        "Nothing to do, if it passes: the operator makes the Secret `modeltiers-hop` anew when it is gone.",
    ),
    Reason("FirstTier", ENTRY, "Requests enter at the first tier that has routers."),
    Reason(
        "FirstTierLeaving",
        ENTRY,
        "The last ready pods of a lower tier are about to be replaced or taken away: requests enter elsewhere before.",
        _WAIT,
    ),
    Reason(
        "FirstTierNotReady",
        ENTRY,
        "No pod of the lower tiers is ready: requests enter at the next tier that has the table.",
        "Look at the ModelTier that is named: `kubectl get mt`.",
    ),
    Reason(
        "FirstTierUnsteady",
        ENTRY,
        "A lower tier is ready again, but not for long enough (`router.entryReturnSeconds` in the settings).",
        _WAIT,
    ),
    Reason("TableNotThere", ENTRY, "A lower tier is ready, but its routers do not have the table.", _SEE_LIVE),
    Reason("NoPodReady", ENTRY, "No tier has a ready pod: the entry stays where it is.", _TIER_WAY_OUT),
    Reason(
        "NoEntry", ENTRY, "No tier has routers with a table for the policy.", "See the conditions Compiled and Live."
    ),
    Reason("Gateway", ENTRY, "Requests enter at routers of the policy's own."),
    Reason(
        "GatewayNotReady",
        ENTRY,
        "None of the policy's own routers is ready (also on Ready); meanwhile a tier takes the requests.",
        "Nothing to do while they start; else look at the pods of Deployment NAME-gateway.",
    ),
    Reason("RouteAccepted", EXPORTED, "The gateway takes the policy's HTTPRoute."),
    Reason(
        "RouteNotSeen",
        EXPORTED,
        "The HTTPRoute is written, and no gateway has said anything of it yet.",
        "Look whether there is such a Gateway, and a controller for it, if it stays.",
    ),
    Reason("RouteRefused", EXPORTED, "The gateway does not take the HTTPRoute.", "Do what its own words say."),
    Reason(
        "GatewayNotKnown",
        EXPORTED,
        "spec.export.gateway is not one of the administrator's `gateways`.",
        "Name one of them, or have it added.",
    ),
    Reason(
        "GatewayApiMissing",
        EXPORTED,
        "The cluster does not serve HTTPRoute; looked for again twice a minute.",
        "Install Gateway API's CustomResourceDefinitions and a controller, or remove spec.export.",
    ),
    Reason("RouteNotWritten", EXPORTED, "The API server does not take the HTTPRoute.", "Do what the message says."),
    Reason("NothingToExport", EXPORTED, "The policy has no Service yet.", "See the conditions Compiled and Entry."),
    Reason("RouteLeftAlone", EXPORTED, "The spec is not accepted; the HTTPRoute stays as it was.", "Correct the spec."),
    Reason("Serving", conditions.READY, "The present table is live and the tiers answer."),
    Reason("NoTierReady", conditions.READY, "No tier on the ladder answers.", _TIER_WAY_OUT),
    Reason(
        "GatewayFailed",
        conditions.STALLED,
        "The policy's own routers do not all run; the message has the reason, as tiers have it.",
        "Do what the message says.",
    ),
    Reason("Terminating", conditions.RECONCILING, "The policy is being deleted.", _WAIT),
    Reason("Settled", conditions.RECONCILING, "Nothing is being worked on."),
    Reason("Stalled", conditions.RECONCILING, "Nothing is being worked on: see the condition Stalled."),
    Reason("ApiUnavailable", conditions.RECONCILING, "The API server did not take a write; it is tried again.", _WAIT),
    Reason(
        "NotWritten",
        conditions.STALLED,
        "The API server refuses a ConfigMap, Service or Deployment of the policy.",
        "Do what the message says.",
    ),
    Reason("NotStalled", conditions.STALLED, "Nothing stands in the way."),
    Reason(
        "DoubtsFound",
        DOUBTFUL,
        "Something in the spec does nothing, never happens or contradicts itself; status.doubts has all of it.",
        "Do what each doubt says, or leave it: it is served as written.",
    ),
    Reason("NothingDoubtful", DOUBTFUL, "Nothing of the kind was found."),
    Reason("NotLinted", DOUBTFUL, "The spec does not compile, so it was not looked at.", "See the condition Compiled."),
)
QUESTIONS: Final[Mapping[str, str]] = {
    conditions.ACCEPTED: "Is the spec valid, and its model name free?",
    COMPILED: "Is there a table? When it is False, Ready and Stalled carry the same reason.",
    TIERS_READY: "Does every tier on the ladder answer?",
    LIVE: "Do all routers serve the present table?",
    KEYS_FOUND: "Do the routers have the client keys that the policy names, and the key that hops are signed with?",
    ENTRY: "Do requests enter at the first tier? `status.entry` says where they do, and since when.",
    EXPORTED: "Is there a way in from outside the cluster? Only with `spec.export`; it changes nothing about Ready.",
    conditions.READY: "Does the present spec serve? The reasons of the conditions above, and these.",
    conditions.RECONCILING: "Is something being worked on?",
    conditions.STALLED: "Does something stand in the way?",
    DOUBTFUL: "Is something in the spec hardly meant? It changes nothing about Ready.",
}
