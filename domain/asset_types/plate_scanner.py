"""A camera over a line of steel plates, told of once for each fault it has found.

What it tells is in pixels and grey levels; the publisher names no unit for the thickness, so it is
kept as a plain number. Physical ranges are engineering assumptions around what was published.

References
----------
M. Buscema, S. Terzi, W. Tastle, A new meta-classifier, North American Fuzzy Information
Processing Society (2010); Semeion, UCI Machine Learning Repository, 198.
"""

from domain.asset_model import AssetType, channel

ASSET_TYPE = AssetType(
    name="plate-scanner",
    title="Steel plate scanner",
    description="A camera that measures the marks on steel plates.",
    channels=(
        channel("mark_area", "Area of the mark, pixels", "ratio", "1", (0, 1e6)),
        channel("mark_perimeter_x", "Perimeter along X, pixels", "ratio", "1", (0, 1e6)),
        channel("mark_perimeter_y", "Perimeter along Y, pixels", "ratio", "1", (0, 1e6)),
        channel("luminosity_sum", "Sum of luminosity", "ratio", "1", (0, 1e9)),
        channel("luminosity_least", "Least luminosity", "ratio", "1", (0, 255)),
        channel("luminosity_most", "Greatest luminosity", "ratio", "1", (0, 255)),
        channel("plate_thickness", "Thickness of the plate, as delivered", "ratio", "1", (0, 1e4)),
    ),
    stale_after_s=3_600.0,
)
