"""The account of a calibration: a document, a table, a plot."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flashrib.calibration.choose import Choice
from flashrib.calibration.layers import Layer
from flashrib.calibration.options import CalibrationOptions
from flashrib.calibration.plot import plot_curve
from flashrib.calibration.sensitivity import Cost
from flashrib.calibration.tiles import TileSet


@dataclasses.dataclass(frozen=True)
class Report:
    """All that a calibration found out.

    Attributes:
        options: what was asked for.
        layers: all products outside of attention, in the order of the network.
        macs: of each for one tile, by name.
        costs: of each candidate alone, by name.
        choice: order, curve and what was chosen.
        psnr: of the unquantized model on the held-out tiles in dB.
        tiles: that were drawn.
        rest: precision of everything that is not quantized.
    """

    options: CalibrationOptions
    layers: tuple[Layer, ...]
    macs: Mapping[str, int]
    costs: Mapping[str, Cost]
    choice: Choice
    psnr: float
    tiles: TileSet
    rest: str

    def summary(self) -> dict[str, Any]:
        """What the quantized file says about its calibration, in JSON's types."""
        point, options = self.choice.point, self.options
        return {
            "method": options.method,
            "rest": self.rest,
            "budget_db": options.budget,
            "psnr_db": round(min(point.quality.psnr, 999.0), 4),  # JSON has no infinity, which equal pictures have
            "psnr_drop_db": round(point.quality.drop, 5),
            "loss_db": round(point.quality.loss, 5),
            "share_of_macs": round(point.share, 5),
            "tiles": options.tiles,
            "held_out": options.held_out,
            "seed": options.seed,
            "pictures": self.tiles.pictures,
            "pictures_sha256": self.tiles.sha256,
            "layers": sorted(layer.name for layer in self.choice.layers),
        }

    def document(self) -> dict[str, Any]:
        """Everything, in JSON's types."""
        total = sum(self.macs.values())
        chosen = {layer.name for layer in self.choice.layers}
        rank = {layer.name: place for place, layer in enumerate(self.choice.order, 1)}
        rows = []
        for layer in self.layers:
            cost = self.costs.get(layer.name)
            rows.append(
                {
                    "layer": layer.name,
                    "node": layer.node,
                    "share_of_macs": self.macs[layer.name] / total,
                    "place": rank.get(layer.name),
                    "psnr_drop_db": cost.drop if cost is not None else None,
                    "error": cost.error if cost is not None else None,
                    "quantized": layer.name in chosen,
                    "kept": layer.kept or (None if layer.name in chosen else "over the budget"),
                }
            )
        curve = [
            {
                "layers": point.layers,
                "share_of_macs": point.share,
                "psnr_db": point.quality.psnr,
                "psnr_drop_db": point.quality.drop,
                "loss_db": point.quality.loss,
                "error": point.quality.error,
            }
            for point in self.choice.curve
        ]
        tiles = [
            {"picture": tile.picture, "kind": tile.kind, "row": tile.row, "column": tile.column}
            for tile in (*self.tiles.calibration, *self.tiles.held_out)
        ]
        return {
            "mode": self.options.mode,
            **self.summary(),
            "unquantized_psnr_db": self.psnr,
            "curve": curve,
            "order": [layer.name for layer in self.choice.order],
            "products": rows,
            "drawn": tiles,
        }

    def plot(self) -> bytes:
        """The curve as a PNG."""
        curve = self.choice.curve
        return plot_curve(
            [point.share for point in curve],
            [point.quality.psnr for point in curve],
            self.psnr,
            self.options.budget,
            next(i for i, point in enumerate(curve) if point.layers == self.choice.chosen),
            f"{self.options.mode}, {self.options.method}: PSNR on {self.options.held_out} held-out tiles",
        )
