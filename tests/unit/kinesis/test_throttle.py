from kflow.kinesis.throttle import Bucket, ShardLimits

MIB = 1 << 20


def test_a_bucket_fills_at_its_rate_up_to_one_seconds_worth():
    bucket = Bucket(100, 0)
    bucket.take(100)
    assert bucket.level(0) == 0
    assert bucket.level(500) == 50
    assert bucket.level(60_000) == 100


def test_a_clock_that_goes_back_brings_nothing():
    bucket = Bucket(100, 1000)
    bucket.take(100)
    assert bucket.level(0) == 0
    assert bucket.level(100) == 10


def test_a_thousand_records_a_second_are_taken():
    limits = ShardLimits()
    assert limits.admit(1, 0, [1] * 600, 0) == 600
    assert limits.admit(1, 0, [1] * 600, 0) == 400
    assert limits.admit(1, 0, [1] * 600, 0) == 0
    assert limits.admit(1, 0, [1] * 600, 100) == 100


def test_a_mebibyte_a_second_is_taken():
    limits = ShardLimits()
    assert limits.admit(1, 0, [MIB // 2] * 3, 0) == 2
    assert limits.admit(1, 0, [1], 0) == 0
    assert limits.admit(1, 0, [MIB // 2] * 3, 500) == 1


def test_the_bytes_of_a_call_are_rounded_up_to_the_next_kibibyte():
    limits = ShardLimits()
    for _ in range(512):  # single puts, each two KiB
        assert limits.admit(1, 0, [1025], 0) == 1
    assert limits.admit(1, 0, [1], 0) == 0
    for stream, rest, taken in ((2, MIB - 1024, 1), (3, MIB - 1023, 0)):  # 500 bytes in one call take one KiB
        assert limits.admit(stream, 0, [1] * 500, 0) == 500
        assert limits.admit(stream, 0, [rest], 0) == taken


def test_a_large_record_passes_a_full_bucket_and_what_follows_pays_for_it():
    limits = ShardLimits()
    assert limits.admit(1, 0, [10 * MIB, 1], 0) == 1
    assert limits.admit(1, 0, [1], 9000) == 0
    assert limits.admit(1, 0, [1], 9001) == 1
    assert limits.admit(1, 0, [10 * MIB], 9500) == 0
    assert limits.admit(1, 0, [10 * MIB], 10_100) == 1


def test_nothing_overtakes_a_record_that_is_refused():
    limits = ShardLimits()
    assert limits.admit(1, 0, [MIB // 2, MIB, 1], 0) == 1


def test_shards_have_limits_of_their_own():
    limits = ShardLimits()
    assert limits.admit(1, 0, [1] * 1000, 0) == 1000
    assert limits.admit(1, 1, [1] * 1000, 0) == 1000
    assert limits.admit(2, 0, [1] * 1000, 0) == 1000


def test_five_reads_a_second_are_served():
    limits = ShardLimits()
    assert [limits.may_read(1, 0, 0) for _ in range(6)] == [True] * 5 + [False]
    assert not limits.may_read(1, 0, 199)
    assert limits.may_read(1, 0, 200)


def test_ten_mebibytes_stop_reads_for_four_seconds():
    limits = ShardLimits()
    assert limits.may_read(1, 0, 0)
    limits.have_read(1, 0, 10 * MIB, 0)
    assert not limits.may_read(1, 0, 4000)
    assert limits.may_read(1, 0, 4001)


def test_reads_and_writes_do_not_hinder_each_other():
    limits = ShardLimits()
    limits.admit(1, 0, [MIB], 0)
    assert limits.may_read(1, 0, 0)


def test_shards_that_nobody_uses_are_forgotten():
    limits = ShardLimits()
    for shard in range(1000):
        limits.admit(1, shard, [1], 0)
    limits.admit(2, 0, [1], 200_000)
    assert len(limits._shards) == 1
