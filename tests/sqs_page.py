"""The page `kflow/services/sqs.md`: which tests show an operation, and what is missing of it.

python -m tests.sqs_page    writes its table anew
"""

from __future__ import annotations

from typing import Final

from kflow.services.sqs.service import Sqs
from tests.service_page import Page

MISSING: Final = {
    "AddPermission": "kept and shown in `Policy`; nobody is refused by it",
    "CreateQueue": "`Policy` and encryption are kept and shown, without effect",
    "RemovePermission": "kept and shown in `Policy`; nobody is refused by it",
    "SetQueueAttributes": "`Policy` and encryption are kept and shown, without effect",
}
"""What is missing of an operation; what is not here is complete."""

TESTS: Final = {
    "AddPermission": ("permissions_are_statements_of_the_policy", "a_policy_of_any_form_takes_permissions"),
    "CancelMessageMoveTask": ("a_move_task_has_a_target_and_a_rate_and_can_be_cancelled",),
    "ChangeMessageVisibility": (
        "a_changed_visibility_is_that_of_one_delivery",
        "what_must_be_given_beside_a_queue_is_named",
    ),
    "ChangeMessageVisibilityBatch": ("deletes_and_changes_of_visibility_come_in_batches",),
    "CreateQueue": ("making_a_queue_twice_is_making_it_once", "what_is_no_name"),
    "DeleteMessage": ("a_message_is_sent_received_and_deleted", "what_must_be_given_is_named"),
    "DeleteMessageBatch": ("deletes_and_changes_of_visibility_come_in_batches",),
    "DeleteQueue": (
        "a_deleted_queue_is_gone_and_its_name_is_free",
        "kill_9_leaves_a_queue_made_or_not_made_and_deleted_or_not",
    ),
    "GetQueueAttributes": (
        "a_new_queue_has_the_defaults",
        "an_attribute_that_is_asked_for_and_unknown_is_refused",
    ),
    "GetQueueUrl": ("the_url_of_a_queue_is_told_also_of_another_account",),
    "ListDeadLetterSourceQueues": ("sources_are_listed",),
    "ListMessageMoveTasks": ("a_move_task_brings_letters_back_to_their_queues",),
    "ListQueueTags": ("tags_are_kept",),
    "ListQueues": ("queues_are_listed_page_by_page",),
    "PurgeQueue": ("a_purge_removes_all_and_is_allowed_once_a_minute", "a_purge_forgets_duplicates"),
    "ReceiveMessage": (
        "a_receive_gives_one_message_where_it_does_not_say_how_many",
        "what_a_receive_refuses",
        "a_call_may_say_that_it_does_not_wait",
    ),
    "RemovePermission": ("permissions_are_statements_of_the_policy",),
    "SendMessage": ("what_a_send_refuses", "what_a_fifo_queue_refuses"),
    "SendMessageBatch": ("a_batch_says_of_each_what_became_of_it", "a_batch_that_is_refused"),
    "SetQueueAttributes": ("attributes_are_set_and_kept", "what_cannot_be_set"),
    "StartMessageMoveTask": (
        "a_move_task_brings_letters_back_to_their_queues",
        "what_move_tasks_refuse",
    ),
    "TagQueue": ("tags_are_kept",),
    "UntagQueue": ("tags_are_kept",),
}
"""The tests that show an operation best."""

PAGE: Final = Page(service="sqs", performer=Sqs, module="tests.sqs_page", missing=MISSING, absent={}, tests=TESTS)

if __name__ == "__main__":
    PAGE.path.write_text(PAGE.made(), encoding="utf-8")
