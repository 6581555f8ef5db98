"""The page `kflow/services/kinesis.md`: which tests show an operation, and what is missing of it.

python -m tests.kinesis_page    writes its table anew
"""

from __future__ import annotations

from typing import Final

from kflow.services.kinesis.service import Kinesis
from tests.service_page import Page

MISSING: Final = {
    "CreateChannel": "there are no channels: always refused, with what to do instead",
    "DeleteChannel": "there are no channels: none is ever found",
    "DescribeChannel": "there are no channels: none is ever found",
    "DisableEnhancedMonitoring": "kept and shown; nothing is sent to CloudWatch",
    "EnableEnhancedMonitoring": "kept and shown; nothing is sent to CloudWatch",
    "ListChannels": "there are no channels: the list is empty",
    "PutResourcePolicy": "kept and shown; nobody is refused by it",
    "StartStreamEncryption": "shown of stream and records; they are not encrypted, and no key is looked up",
    "UpdateAccountSettings": "kept and shown; nothing is billed",
    "UpdateChannel": "there are no channels: none is ever found",
    "UpdateShardCount": "a stream has 1,000 shards at most",
    "UpdateStreamWarmThroughput": "kept and shown; shards are as quick as they are",
}
"""What is missing of an operation; what is not here is complete."""

TESTS: Final = {
    "AcknowledgeDeadLetterQueueRecords": ("a_dead_letter_is_acknowledged",),
    "AcknowledgeQueueRecords": (
        "an_acknowledged_record_never_comes_again",
        "every_record_is_delivered_and_acknowledged",
    ),
    "AddTagsToStream": ("tags_are_added_replaced_removed_and_listed_by_key", "tags_are_refused_in_the_words_of_aws"),
    "CreateChannel": ("a_channel_is_not_made_and_the_refusal_says_what_to_do",),
    "CreateQueue": ("a_new_queue_is_creating_and_then_active", "only_on_demand_streams_have_queues"),
    "CreateStream": (
        "a_new_stream_is_creating_without_shards_and_then_active_with_them",
        "what_a_new_stream_may_not_have_is_refused",
    ),
    "DecreaseStreamRetentionPeriod": (
        "retention_grows_and_shrinks_and_equal_values_succeed_both_ways",
        "retention_is_refused_in_the_words_of_aws",
    ),
    "DeleteChannel": ("there_are_no_channels",),
    "DeleteQueue": ("a_deleted_queue_is_deleting_and_then_gone_with_its_files",),
    "DeleteResourcePolicy": ("a_consumer_and_a_stream_have_tags_and_a_policy_by_their_arn",),
    "DeleteStream": (
        "a_deleted_stream_is_deleting_without_shards_and_then_gone",
        "a_stream_with_consumers_is_deleted_only_with_them",
    ),
    "DeregisterStreamConsumer": (
        "a_consumer_is_creating_and_then_active_and_then_deleting_and_then_gone",
        "all_three_names_of_a_consumer_must_agree",
    ),
    "DescribeAccountSettings": ("an_account_begins_without_a_commitment",),
    "DescribeChannel": ("there_are_no_channels",),
    "DescribeLimits": ("large_regions_have_more_shards", "every_operation_but_those_on_channels_succeeds"),
    "DescribeQueue": ("a_new_queue_is_creating_and_then_active",),
    "DescribeStream": (
        "a_new_stream_is_creating_without_shards_and_then_active_with_them",
        "shards_are_described_a_hundred_at_a_time",
    ),
    "DescribeStreamConsumer": ("all_three_names_of_a_consumer_must_agree",),
    "DescribeStreamSummary": ("an_on_demand_stream_begins_with_four_shards_and_takes_no_count",),
    "DisableEnhancedMonitoring": ("monitoring_answers_what_was_and_what_will_be",),
    "EnableEnhancedMonitoring": ("monitoring_answers_what_was_and_what_will_be",),
    "GetRecords": (
        "a_record_has_its_four_members",
        "ten_mebibytes_end_a_page_before_the_record_that_would_exceed_them",
        "a_shard_that_was_split_ends_with_its_children_and_no_token",
    ),
    "GetResourcePolicy": ("a_consumer_and_a_stream_have_tags_and_a_policy_by_their_arn",),
    "GetShardIterator": ("all_five_types", "a_number_that_is_none_and_one_of_another_stream"),
    "IncreaseStreamRetentionPeriod": (
        "retention_grows_and_shrinks_and_equal_values_succeed_both_ways",
        "what_has_expired_is_noted_when_the_retention_grows",
    ),
    "ListChannels": ("there_are_no_channels",),
    "ListQueues": ("queues_are_listed_by_name_in_pages", "queues_are_listed_by_stream"),
    "ListShards": (
        "filters_of_a_young_stream_after_a_reshard",
        "a_token_carries_the_filter",
        "a_page_has_a_thousand_shards_at_most",
    ),
    "ListStreamConsumers": ("consumers_are_listed_by_name_in_pages_whose_token_belongs_to_the_stream",),
    "ListStreams": ("streams_are_listed_by_name_a_page_of_a_hundred_at_a_time",),
    "ListTagsForResource": ("a_consumer_and_a_stream_have_tags_and_a_policy_by_their_arn",),
    "ListTagsForStream": ("tags_are_added_replaced_removed_and_listed_by_key",),
    "MergeShards": ("a_merge_has_two_parents", "changes_of_shards_are_refused_in_the_order_and_words_of_aws"),
    "PutRecord": (
        "says_shard_and_number_and_nothing_of_encryption",
        "md5_of_the_key_chooses_the_shard_and_an_explicit_hash_key_overrides_it",
    ),
    "PutRecords": (
        "answers_are_aligned_with_the_request",
        "limits_refuse_a_shards_records_from_the_first_that_is_too_much",
    ),
    "PutResourcePolicy": (
        "a_consumer_and_a_stream_have_tags_and_a_policy_by_their_arn",
        "a_policy_that_is_no_object_is_refused",
    ),
    "ReceiveDeadLetterQueueRecords": ("a_record_that_fails_too_often_is_put_aside_and_restored",),
    "ReceiveQueueRecords": (
        "every_record_is_delivered_and_acknowledged",
        "a_long_poll_is_answered_by_the_next_put",
    ),
    "RegisterStreamConsumer": (
        "a_consumer_is_creating_and_then_active_and_then_deleting_and_then_gone",
        "five_consumers_are_made_at_a_time",
    ),
    "RemoveTagsFromStream": ("tags_are_added_replaced_removed_and_listed_by_key",),
    "RestoreDeadLetterQueueRecords": ("a_restored_dead_letter_begins_anew",),
    "SplitShard": (
        "a_split_is_seen_when_its_time_is_over_and_not_before",
        "changes_of_shards_are_refused_in_the_order_and_words_of_aws",
    ),
    "StartStreamEncryption": (
        "encryption_is_shown_with_its_key_as_it_was_given",
        "encryption_changes_twenty_five_times_a_day",
    ),
    "StopStreamEncryption": ("encryption_stops_with_the_key_in_use_only",),
    "SubscribeToShard": (
        "a_record_that_is_put_after_subscribing_is_pushed",
        "a_second_subscription_takes_over_after_five_seconds_and_not_before",
        "a_split_ends_the_parents_subscription_with_its_children",
    ),
    "TagResource": ("a_consumer_and_a_stream_have_tags_and_a_policy_by_their_arn",),
    "UntagResource": ("a_consumer_and_a_stream_have_tags_and_a_policy_by_their_arn",),
    "UpdateAccountSettings": (
        "a_commitment_lasts_a_day_at_least",
        "after_a_day_a_commitment_ends_at_once_and_may_begin_anew",
    ),
    "UpdateChannel": ("there_are_no_channels",),
    "UpdateDeadLetterQueueRecordsVisibility": ("a_dead_letter_is_hidden_and_shown",),
    "UpdateMaxRecordSize": ("larger_records_are_a_setting_of_the_map",),
    "UpdateQueue": (
        "an_update_is_shown_at_once_and_passes_through_updating",
        "new_rules_hold_when_the_update_is_complete",
    ),
    "UpdateQueueRecordsVisibility": ("visibility_is_prolonged_and_ended",),
    "UpdateShardCount": (
        "a_scaling_answers_what_there_is_and_what_will_be",
        "scaling_is_bounded_by_double_and_half",
        "ten_scalings_a_day_are_enough",
    ),
    "UpdateStreamMode": ("the_mode_changes_twice_a_day_and_the_shards_stay",),
    "UpdateStreamRecordDistributionStrategy": ("distribution_changes_at_once_and_only_on_demand",),
    "UpdateStreamWarmThroughput": ("warm_throughput_needs_the_commitment_and_is_reached_after_a_while",),
}
"""The tests that show an operation best."""

PAGE: Final = Page(
    service="kinesis", performer=Kinesis, module="tests.kinesis_page", missing=MISSING, absent={}, tests=TESTS
)

if __name__ == "__main__":
    PAGE.path.write_text(PAGE.made(), encoding="utf-8")
