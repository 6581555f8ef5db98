"""Streams: made, deleted, described, listed, resharded, and their settings."""

from __future__ import annotations

from typing import Any, Final

from kflow import limits
from kflow.arn import stream_name
from kflow.aws.calls import LATER, Answer, Call
from kflow.broker.reshardplan import parsed
from kflow.broker.streammap import StreamMode
from kflow.errors import InvalidArgument
from kflow.kinesis import describing, pages, quotas, shards
from kflow.kinesis.lifecycle import NewStream
from kflow.services.answering import answering
from kflow.services.kinesis.control import PAGE, Control

_STREAMS: Final = b"streams"
_CHANNELS: Final = 50
"""Channels that an account may have; there are none. Source: chosen: the quota is not documented."""


class Streams(Control):
    """Operations on streams."""

    # ------------------------------------------------------------------ made and deleted

    def create_stream(self, call: Call, given: Any) -> Answer:
        """Source: documented: CreateStream."""
        self.admit(call, "CreateStream", given.StreamName)
        details = given.StreamModeDetails
        wanted = NewStream(
            given.StreamName,
            given.ShardCount,
            StreamMode.PROVISIONED if details is None else StreamMode(details.StreamMode),
            given.Tags,
            given.WarmThroughputMiBps,
            given.MaxRecordSizeInKiB,
            given.RecordDistributionStrategy,
        )
        self.lifecycle.create(call.context.place, wanted, answering(call))
        return LATER

    def delete_stream(self, call: Call, given: Any) -> Answer:
        """Source: documented: DeleteStream."""
        stream = self.named(call, "DeleteStream", given)
        self.lifecycle.delete(stream, enforce=bool(given.EnforceConsumerDeletion), told=answering(call))
        return LATER

    # ------------------------------------------------------------------ described

    def describe_stream(self, call: Call, given: Any) -> Answer:
        """Source: documented: DescribeStream."""
        stream = self.named(call, "DescribeStream", given)
        start = given.ExclusiveStartShardId
        after = -1 if start is None else shards.index_of(stream.name, stream.account, start)
        limit = min(given.Limit or PAGE, PAGE)
        page = describing.stream_page(stream, after=after, limit=limit, now_ms=self.host.now_ms())
        return {"StreamDescription": page}

    def describe_stream_summary(self, call: Call, given: Any) -> Answer:
        """Source: documented: DescribeStreamSummary."""
        stream, now_ms = self.named(call, "DescribeStreamSummary", given), self.host.now_ms()
        summary = describing.stream_summary(
            stream,
            queues=self.registry.queues_on(stream.id),
            is_advantage=self.accounts.is_advantage(stream.place, now_ms),
            now_ms=now_ms,
        )
        return {"StreamDescriptionSummary": summary}

    def list_streams(self, call: Call, given: Any) -> Answer:
        """Source: documented: ListStreams; chosen: a token goes without a start."""
        self.admit(call, "ListStreams")
        now_ms, after, limit = self.host.now_ms(), given.ExclusiveStartStreamName or "", given.Limit
        if given.NextToken is not None:
            if after:
                raise InvalidArgument("NextToken and ExclusiveStartStreamName cannot be provided together.")
            (after,) = pages.said(self.parts.seal, _STREAMS, given.NextToken, now_ms)
        size = min(limit or PAGE, PAGE)
        found = self.registry.page(call.context.place, after, size + 1)
        page = found[:size]
        answer: dict[str, Any] = {
            "StreamNames": [each.name for each in page],
            "HasMoreStreams": len(found) > size,
            "StreamSummaries": [describing.summary(each, now_ms) for each in page],
        }
        if len(found) > size:
            answer["NextToken"] = pages.token(self.parts.seal, _STREAMS, now_ms, page[-1].name)
        return answer

    def describe_limits(self, call: Call, given: Any) -> Answer:
        """Source: documented: DescribeLimits."""
        del given
        self.admit(call, "DescribeLimits")
        place = call.context.place
        streams = self.registry.streams(place)
        return {
            "ShardLimit": quotas.shard_limit(place),
            "OpenShardCount": quotas.open_shards(streams),
            "OnDemandStreamCount": quotas.on_demand(streams),
            "OnDemandStreamCountLimit": limits.ON_DEMAND_STREAMS,
            "ChannelCount": 0,
            "ChannelCountLimit": _CHANNELS,
        }

    # ------------------------------------------------------------------ shards

    def split_shard(self, call: Call, given: Any) -> Answer:
        """Source: documented: SplitShard; recorded: the form of the shard id is looked at before the stream."""
        shard = self._index(call, given, given.ShardToSplit)
        stream = self.named(call, "SplitShard", given)
        self.lifecycle.split(stream, shard, given.NewStartingHashKey, answering(call))
        return LATER

    def merge_shards(self, call: Call, given: Any) -> Answer:
        """Source: documented: MergeShards; recorded: as for SplitShard."""
        first = self._index(call, given, given.ShardToMerge)
        second = self._index(call, given, given.AdjacentShardToMerge)
        stream = self.named(call, "MergeShards", given)
        self.lifecycle.merge(stream, first, second, answering(call))
        return LATER

    def update_shard_count(self, call: Call, given: Any) -> Answer:
        """Source: documented: UpdateShardCount."""
        stream = self.named(call, "UpdateShardCount", given)
        answer = {
            "StreamName": stream.name,
            "CurrentShardCount": stream.open_count,
            "TargetShardCount": given.TargetShardCount,
            "StreamARN": stream.arn,
        }
        self.lifecycle.scale(stream, given.TargetShardCount, answering(call, lambda _: answer))
        return LATER

    def _index(self, call: Call, given: Any, text: str) -> int:
        name = given.StreamName or stream_name(given.StreamARN or "")
        return parsed(text, name, call.context.place.account)

    # ------------------------------------------------------------------ settings

    def increase_stream_retention_period(self, call: Call, given: Any) -> Answer:
        """Source: documented: IncreaseStreamRetentionPeriod."""
        stream = self.named(call, "IncreaseStreamRetentionPeriod", given)
        told = answering(call)
        self.alterations.retention(stream, given.RetentionPeriodHours, longer=True, told=told)
        return LATER

    def decrease_stream_retention_period(self, call: Call, given: Any) -> Answer:
        """Source: documented: DecreaseStreamRetentionPeriod."""
        stream = self.named(call, "DecreaseStreamRetentionPeriod", given)
        told = answering(call)
        self.alterations.retention(stream, given.RetentionPeriodHours, longer=False, told=told)
        return LATER

    def update_stream_mode(self, call: Call, given: Any) -> Answer:
        """Source: documented: UpdateStreamMode."""
        stream = self.by_arn(call, "UpdateStreamMode", given.StreamARN)
        mode = StreamMode(given.StreamModeDetails.StreamMode)
        self.alterations.mode(stream, mode, given.WarmThroughputMiBps, answering(call))
        return LATER

    def update_max_record_size(self, call: Call, given: Any) -> Answer:
        """Source: documented: UpdateMaxRecordSize."""
        if given.StreamARN is None:
            raise InvalidArgument("StreamARN must be provided.")
        stream = self.by_arn(call, "UpdateMaxRecordSize", given.StreamARN)
        self.alterations.record_size(stream, given.MaxRecordSizeInKiB, answering(call))
        return LATER

    def update_stream_record_distribution_strategy(self, call: Call, given: Any) -> Answer:
        """Source: documented: UpdateStreamRecordDistributionStrategy."""
        stream = self.by_arn(call, "UpdateStreamRecordDistributionStrategy", given.StreamARN)
        self.alterations.distribution(stream, given.RecordDistributionStrategy, answering(call))
        return LATER

    def update_stream_warm_throughput(self, call: Call, given: Any) -> Answer:
        """Source: documented: UpdateStreamWarmThroughput."""
        stream = self.named(call, "UpdateStreamWarmThroughput", given)
        answer: dict[str, Any] = {"StreamARN": stream.arn, "StreamName": stream.name}
        warm = self.alterations.warm(stream, given.WarmThroughputMiBps, answering(call, lambda _: answer))
        answer["WarmThroughput"] = warm
        return LATER
