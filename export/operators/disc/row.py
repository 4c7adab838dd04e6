"""The row of `flashrib::DiscAttention`, and the function `flashrib::PoolTokens` beside it."""

from __future__ import annotations

from flashrib.export.operators.disc import bodies
from flashrib.export.operators.operator import Auxiliary, Body, Operator, Place, Plugin

SIGNATURE = "DiscAttention <text, radius, scale> (q, k, v, grid) => (out, lse)"


def _body(text: str) -> Body:
    return Body(lambda place: [f"{place.head(SIGNATURE)}{{{text}}}"])


def _pool(place: Place) -> list[str]:
    return [f"{place.head('PoolTokens <text, factor> (x, weight, grid) => (y)')}{{{bodies.POOL}}}"]


DISC_ATTENTION = Operator(
    op_type="DiscAttention",
    attributes=("text", "radius", "scale"),
    bodies={"standard": _body(bodies.LOOP), "dense": _body(bodies.DENSE)},
    engine_body="dense",
    older_engine_body="dense",
    auxiliary=(Auxiliary("PoolTokens", _pool, low=True),),
    float_outputs=frozenset({1}),
    plugin=Plugin(
        "flashrib.export.operators.disc.plugin.registration",
        (
            "flashrib.export.operators.plugin",
            "flashrib.export.operators.disc.plugin",
            "flashrib.model.attention.disc",
        ),
        "flashrib.export.operators.disc.plugin.prepare",
    ),
    onnxruntime_kernel="flashrib.export.operators.disc.onnxruntime",
)
