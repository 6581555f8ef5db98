"""Event streams, cut anywhere and spoilt anywhere."""

from hypothesis import given
from hypothesis import strategies as some

from kflow.aws.frames import BrokenFrame, Decoder, Frame, encode, headers

names = some.text(min_size=1, max_size=20)
frames = some.builds(Frame, some.dictionaries(names, some.text(max_size=50), max_size=4), some.binary(max_size=200))


@given(some.lists(frames, max_size=5), some.lists(some.integers(0, 400)))
def test_frames_come_back_however_the_stream_is_cut(several, cuts):
    stream = b"".join(encode(headers(frame.headers), frame.payload) for frame in several)
    decoder = Decoder()
    found = []
    begin = 0
    for end in [*sorted(min(cut, len(stream)) for cut in cuts), len(stream)]:
        found += decoder.feed(stream[begin:end])
        begin = end

    assert found == several
    assert decoder.is_between_frames


@given(frames, some.data())
def test_a_flipped_bit_is_never_read_as_a_frame(frame, data):
    stream = bytearray(encode(headers(frame.headers), frame.payload))
    bit = data.draw(some.integers(0, 8 * len(stream) - 1))
    stream[bit // 8] ^= 1 << bit % 8
    try:
        found = Decoder().feed(bytes(stream))
    except BrokenFrame:
        return
    assert found == []


@given(some.binary(max_size=400))
def test_garbage_is_refused_or_waited_for(garbage):
    decoder = Decoder()
    try:
        found = decoder.feed(garbage)
    except BrokenFrame:
        return
    assert found == []
