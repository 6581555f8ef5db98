"""Objects against a dict: whatever keys there are, each keeps its content, and listings have all of them in order."""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kflow.broker.files import Files
from kflow.broker.objecterrors import NoSuchKey
from kflow.broker.objects import About, Objects

# Few parts, so that keys are beginnings of each other, and clash with what the file system takes for the same.
PARTS = st.sampled_from(["a", "b", "A", "/", "//", ".", "..", ".objects", "a.b", "é", "\0", "%", "=", "~", "x" * 200])
KEYS = st.lists(PARTS, min_size=1, max_size=5).map("".join)
ABOUTS = st.sampled_from([About(), About(content_type="text/plain"), About(metadata={"a": "é"})])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.binary(max_size=4), ABOUTS),
        st.tuples(st.just("delete"), KEYS, st.just(b""), st.just(About())),
    ),
    max_size=25,
)


@settings(max_examples=150)
@given(steps=STEPS, prefix=st.one_of(st.just(""), KEYS), limit=st.integers(1, 4), delimiter=st.sampled_from(["", "/"]))
def test_objects_are_a_dict_that_is_kept(
    steps: list[tuple[str, str, bytes, About]], prefix: str, limit: int, delimiter: str
) -> None:
    with tempfile.TemporaryDirectory() as path:
        objects = Objects(Files(), os.path.join(path, "s3"), sync=False)
        objects.create_bucket("code")
        model: dict[str, tuple[bytes, About]] = {}
        for step, key, content, about in steps:
            if step == "put":
                objects.put("code", key, content, about)
                model[key] = (content, about)
            else:
                assert objects.delete("code", key) == (key in model)
                model.pop(key, None)
        again = Objects(Files(), os.path.join(path, "s3"), sync=False)
        for key, (content, about) in model.items():
            found, read = again.get("code", key)
            assert (read, found.about) == (content, about)
        for _, key, _, _ in steps:
            if key not in model:
                with pytest.raises(NoSuchKey):
                    again.head("code", key)
        assert listed(again, prefix, limit, delimiter) == expected(model, prefix, delimiter)
        assert os.listdir(path) == ["s3"]


def listed(objects: Objects, prefix: str, limit: int, delimiter: str) -> list[str]:
    """All pages, keys and common prefixes together."""
    found: list[str] = []
    after = ""
    while True:
        page = objects.list("code", prefix=prefix, after=after, limit=limit, delimiter=delimiter)
        both = sorted([*page.keys, *page.prefixes])
        assert len(both) <= limit
        found += both
        if not page.last:
            return found
        assert both[-1] == page.last
        after = page.last


def expected(model: dict[str, tuple[bytes, About]], prefix: str, delimiter: str) -> list[str]:
    found = set()
    for key in model:
        if key.startswith(prefix):
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            found.add(key if at < 0 else key[: at + len(delimiter)])
    return sorted(found)
