"""Unions that stay open: configurations told apart by `kind`, to which more can be added."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from fastvoc.config import Kinds, config, from_dict, to_dict

SHAPES = Kinds("shape")


@SHAPES.add
@config
class Circle:
    kind: Literal["circle"] = "circle"
    radius: float = Field(gt=0)


@config
class Drawing:
    shape: Annotated[Any, SHAPES]
    others: tuple[Annotated[Any, SHAPES], ...] = ()


def test_a_kind_that_is_added_later_is_read_and_written_like_the_first() -> None:
    @config
    class Square:
        kind: Literal["square"] = "square"
        side: float

    values = {"shape": {"kind": "square", "side": 2}, "others": [{"kind": "circle", "radius": 1}]}
    with pytest.raises(ValueError, match=r"'square' is no kind of shape; known: circle; .* once that is imported"):
        from_dict(Drawing, values, "a test")
    SHAPES.add(Square)
    try:
        drawing = from_dict(Drawing, values, "a test")
        assert drawing == Drawing(shape=Square(side=2), others=(Circle(radius=1),))
        assert from_dict(Drawing, to_dict(drawing), "a test") == drawing
        assert to_dict(drawing)["others"] == [{"kind": "circle", "radius": 1.0}]
        assert list(SHAPES) == [Circle, Square]
    finally:
        del SHAPES._classes["square"]


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ({"kind": "circel", "radius": 1}, "shape: 'circel' is no kind of shape; did you mean 'circle'"),
        ({"radius": 1}, "shape: expected `kind`, which shape this is; known: circle"),
        (3, "shape: expected a shape as a table with its `kind`, but it is 3"),
        ({"kind": "circle", "radius": -1}, "shape.radius is -1; Input should be greater than 0"),
        ({"kind": "circle", "radius": 1, "radios": 1}, "shape.radios is not a known field; did you mean 'radius'"),
        ({"kind": ["circle"], "radius": 1}, r"shape: \"\['circle'\]\" is no kind of shape"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(shape: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^a test: {sentence}"):
        from_dict(Drawing, {"shape": shape}, "a test")


def test_two_classes_cannot_have_one_name() -> None:
    @config
    class Other:
        kind: Literal["circle"] = "circle"

    with pytest.raises(ValueError, match="Other: Circle is the shape 'circle' already"):
        SHAPES.add(Other)
    assert SHAPES.add(Circle) is Circle
