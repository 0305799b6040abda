"""Pictures of scores."""

from . import new_figure, png


def likeness_plot(held_out: list[float | None], reference: list[float | None]) -> bytes:
    """A PNG: each image's cosine to the held-out photos and to the photo that was learned from; gaps have no face."""
    figure, axes = new_figure(7, 4)
    for label, values, marker in (("held-out photos", held_out, "o"), ("reference photo", reference, "x")):
        there = [(index, value) for index, value in enumerate(values, 1) if value is not None]
        axes.plot([index for index, _ in there], [value for _, value in there], marker, label=label)
    axes.set(xlabel="image", ylabel="cosine", title="likeness: what lies above the held-out marks is copying")
    axes.legend()
    return png(figure)


def frontier_plot(curves: dict[str, list[tuple[float, float, str]]]) -> bytes:
    """A PNG: each method's settings as points (CLIP-T, R-FaceSim, label), joined in the order of CLIP-T."""
    figure, axes = new_figure(8, 5)
    for place, (name, points) in enumerate(curves.items()):
        ordered = sorted(points)
        (line,) = axes.plot([x for x, _, _ in ordered], [y for _, y, _ in ordered], "o-", label=name)
        offset, side = ((7, 5), "left") if place == 0 else ((-7, -11), "right")
        for x, y, label in ordered:
            words = axes.annotate(label, (x, y), xytext=offset, textcoords="offset points", fontsize=8, ha=side)
            words.set_color(line.get_color())
    axes.margins(0.12)
    axes.set(xlabel="CLIP-T: shows what was asked", ylabel="R-FaceSim: is like the person", title="above is better")
    axes.legend()
    return png(figure)
