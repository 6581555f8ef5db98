"""Java's patterns as Python's."""

import pytest

from kflow.aws.patterns import compiled, python_pattern


def matches(pattern, value):
    return compiled(python_pattern(pattern)).match(value) is not None


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"[a-z]+", ["a"], ["", "a\n", "A"]),
        (r"^(0|([1-9]\d{0,38}))$", ["0", "10"], ["01", "\u0661", "0\n"]),
        (r"arn:aws.*:kinesis:.*:\d{12}:stream/\S+",
         ["arn:aws:kinesis:r:000000000000:stream/a", "arn:aws:kinesis:x:kinesis::123456789012:stream/a/b"],
         ["arn:aws:kinesis:r:000000000000:stream/", "arn:aws:kinesis:\n:000000000000:stream/a", "arn:aws:kinesis"]),
        (r"a.*b.*b.*c", ["abbc", "axbxbxc", "abbbbbc"], ["abc", "abb"]),
        (r"(a|b).*c.*d.*e", ["acde", "bXcYdZe"], ["cde"]),
        (r"a.*b|c.*d.*e", ["ab", "cde"], ["ae"]),
        (r".", ["a"], ["\n", "\r", "\u2028", "\x85"]),
        (r"(?s).{1,2}", ["\n\r"], ["", "aaa"]),
        (r"(?i)abc", ["ABC"], ["ABD"]),
        (r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*", ["", "grün é 1", "\u0661"], ["a*", "\x00"]),
        (r"\p{Lu}\P{Lu}", ["Aa", "Éé"], ["AA", "aa"]),
        (r"[\P{M}\p{M}]{1,2}", ["a", "\u0301", "\U0001f600"], ["", "abc"]),
        (r"\p{Alpha}[\p{ASCII}]", ["aé"[:1] + "~"], ["aé", "éa"]),
        (r"[\p{all}]", ["a", "\U0010ffff"], ["ab"]),
        (r"\P{Alnum}", ["é", "-"], ["a"]),
        (r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*", ["a\n\U0001f600"], ["\x00"]),
        (r"\Aa\z", ["a"], ["a\n", "b"]),
        (r"[\w-_ ]+", ["a-_ "], ["+"]),
        (r"[a[b]+", ["a[b"], ["c"]),
        (r"[]a]+", ["]a"], ["b"]),
        (r"a\x{22}\x41", ['a"A'], ["a"]),
        (r"[^:*]*", ["abc", "a\nb"], ["a:b"]),
    ],
)  # fmt: skip
def test_they_match_what_java_matches(pattern, good, bad):
    for value in good:
        assert matches(pattern, value), value
    for value in bad:
        assert not matches(pattern, value), value


@pytest.mark.parametrize("pattern", [r"^(?i)(true|false)$", "[", r"a${1,4}", r"\p{NoSuch}", r"[a\P{Other}]"])
def test_what_python_cannot_say_is_not_checked(pattern):
    assert python_pattern(pattern) is None
