"""Specs are frozen, hashed, overridable, and say what is wrong with a field."""

import json
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import BadValue, UnknownName, UsageError
from workbench.core.spec import Spec, canonical_json, digest_of, later


class Inner(Spec):
    rate: float = 0.5
    names: tuple[str, ...] = ()


class Outer(Spec):
    steps: int = pydantic.Field(default=10, ge=1)
    inner: Inner = Inner()


class Required(Spec):
    model: str


def test_equal_specs_have_equal_digests_and_a_change_shows() -> None:
    assert Outer().digest() == Outer(steps=10).digest() == Outer.parse(json.loads(Outer().canonical())).digest()
    assert Outer().digest() != Outer(steps=11).digest()


def test_frozen() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Outer().steps = 3  # pyright: ignore[reportAttributeAccessIssue]  # that it cannot be set is the point


def test_override_by_path() -> None:
    spec = Outer().override(["inner.rate=0.25", "steps=3", 'inner.names=["a"]'])
    assert (spec.steps, spec.inner.rate, spec.inner.names) == (3, 0.25, ("a",))
    assert Outer().steps == 10


@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        ("step=3", UnknownName, "no field 'step'.*Did you mean 'steps'"),
        ("inner.rat=1", UnknownName, "no field 'inner.rat'.*"),
        ("inner.deep.er=1", UnknownName, "no field"),
        ("steps=0", BadValue, "steps is 0.*greater than or equal to 1"),
        ("steps=many", BadValue, "steps is 'many'"),
        ("steps", BadValue, "name=value"),
        ("inner.rate=NaN", BadValue, "finite"),
    ],
)
def test_wrong_settings_name_the_field(setting: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Outer().override([setting])


class Grown(Spec):
    """``Outer`` as it is after two fields came later."""

    steps: int = pydantic.Field(default=10, ge=1)
    inner: Inner = Inner()
    extra: bool = later(False)
    within: Inner = later(Inner())


def test_a_later_field_at_its_default_changes_no_stored_form() -> None:
    assert Grown().canonical() == Outer().canonical()
    assert Grown().digest() == Outer().digest()
    assert Grown.parse(json.loads(Outer().canonical())) == Grown()
    moved = Grown().override(["extra=true", "within.rate=0.25"])
    assert (moved.extra, moved.within.rate) == (True, 0.25)
    assert moved.digest() != Outer().digest()
    assert json.loads(moved.canonical())["within"] == {"rate": 0.25, "names": []}
    assert Grown.parse(json.loads(moved.canonical())) == moved


def test_a_later_field_can_be_set_by_name_and_a_wrong_one_not() -> None:
    with pytest.raises(UnknownName, match="no field 'extr'.*Did you mean 'extra'"):
        Grown().override(["extr=true"])


def test_missing_field() -> None:
    with pytest.raises(UsageError, match="has no field 'model', which is required"):
        Required.parse({})


def test_more_than_twenty_fields_is_refused() -> None:
    fields: dict[str, Any] = {f"f{i}": (int, 0) for i in range(21)}
    with pytest.raises(TypeError, match="21 fields; a spec has at most 20"):
        pydantic.create_model("Big", __base__=Spec, **fields)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
    )
)
def test_canonical_json_round_trips_and_ignores_order(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    if isinstance(value, dict):
        assert digest_of(dict(reversed(value.items()))) == digest_of(value)


def test_canonical_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": float("nan")})
