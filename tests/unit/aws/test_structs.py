"""Types made of shapes."""

import msgspec
import pytest

from kflow.aws.shapes import Model
from kflow.aws.structs import Milliseconds, Structs, settled
from tests.unit.aws.fakes import operation

SHAPES = {
    "Top": {
        "type": "structure",
        "required": ["When"],
        "members": {name: {"shape": name} for name in ("When", "Whens", "Named", "Rows", "Float", "Byte", "Huge")},
    },
    "When": {"type": "timestamp"},
    "Whens": {"type": "list", "member": {"shape": "When"}},
    "Named": {"type": "map", "key": {"shape": "Text"}, "value": {"shape": "When"}},
    "Rows": {"type": "list", "member": {"shape": "Row"}},
    "Row": {"type": "structure", "members": {"When": {"shape": "When"}, "Text": {"shape": "Text"}}},
    "Text": {"type": "string"},
    "Float": {"type": "float", "min": 0, "max": 1},
    "Byte": {"type": "byte", "min": 1.5},
    "Huge": {"type": "biginteger"},
}
MODEL = Model("t", {"metadata": {"protocol": "json", "endpointPrefix": "t"}, "operations": {}, "shapes": SHAPES})


def test_timestamps_end_as_plain_integers_wherever_they_are():
    shape = MODEL.structure("Top")
    kind = Structs().of(shape)
    row = Structs().of(MODEL.structure("Row"))
    given = kind(
        When=Milliseconds(1), Whens=[Milliseconds(2)], Named={"a": Milliseconds(3)}, Rows=[row(When=Milliseconds(4))]
    )
    given = settled(shape)(given)
    assert msgspec.to_builtins(given) == {
        "When": 1, "Whens": [2], "Named": {"a": 3}, "Rows": [{"When": 4, "Text": None}],
        "Float": None, "Byte": None, "Huge": None,
    }  # fmt: skip
    assert settled(operation("PutRecord").input) is None


@pytest.mark.parametrize(
    ("member", "good", "bad"),
    [("Float", 0.5, 1.5), ("Byte", 2, 1), ("Byte", 127, 128), ("Huge", 2**70, 1.5), ("Float", 1, -0.1)],
)
def test_numbers_have_the_bounds_of_their_kind_and_of_their_shape(member, good, bad):
    kind = Structs().of(MODEL.structure("Top"))

    def hook(kind, value):
        return Milliseconds(value)

    assert getattr(msgspec.convert({"When": 1, member: good}, kind, dec_hook=hook), member) == good
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"When": 1, member: bad}, kind, dec_hook=hook)


def test_types_are_made_once():
    structs = Structs()
    assert structs.of(MODEL.structure("Top")) is structs.of(MODEL.structure("Top"))
    assert structs.is_exact(MODEL.structure("Top"))


def test_a_pattern_that_python_cannot_say_is_not_in_the_type():
    shapes = {
        "In": {"type": "structure", "members": {"Name": {"shape": "Name"}}},
        "Name": {"type": "string", "pattern": "^(?i)(true|false)$", "max": 5},
    }
    odd = Model("t", {"metadata": {"protocol": "json", "endpointPrefix": "t"}, "operations": {}, "shapes": shapes})
    kind = Structs().of(odd.structure("In"))
    assert msgspec.convert({"Name": "maybe"}, kind).Name == "maybe"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"Name": "perhaps"}, kind)
