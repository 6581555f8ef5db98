"""The page `kflow/services/lambda.md`: its tables of operations and of scenarios are made here.

python -m tests.lambda_page    writes them anew
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from kflow.services.lambda_.service import Lambda
from tests.scenarios import form
from tests.service_page import Page, replaced

_DURABLE: Final = "durable executions: a workflow is not run here"
_CAPACITY: Final = "capacity providers: there are no instances to manage"
_SIGNING: Final = "code signing: there is no signer"
_SCALING: Final = "scaling of managed instances: there are none"
_POLICY: Final = "the newer operations on policies: `AddPermission` and `GetPolicy` are there"

ABSENT: Final = {
    "CheckpointDurableExecution": _DURABLE,
    "CreateCapacityProvider": _CAPACITY,
    "CreateCodeSigningConfig": _SIGNING,
    "DeleteCapacityProvider": _CAPACITY,
    "DeleteCodeSigningConfig": _SIGNING,
    "DeleteDurableExecution": _DURABLE,
    "DeleteResourcePolicy": _POLICY,
    "GetCapacityProvider": _CAPACITY,
    "GetCodeSigningConfig": _SIGNING,
    "GetDurableExecution": _DURABLE,
    "GetDurableExecutionHistory": _DURABLE,
    "GetDurableExecutionState": _DURABLE,
    "GetFunctionScalingConfig": _SCALING,
    "GetResourcePolicy": _POLICY,
    "ListCapacityProviders": _CAPACITY,
    "ListDurableExecutionsByFunction": _DURABLE,
    "ListFunctionVersionsByCapacityProvider": _CAPACITY,
    "ListFunctionsByCodeSigningConfig": _SIGNING,
    "PauseDurableExecution": _DURABLE,
    "PutFunctionCodeSigningConfig": _SIGNING,
    "PutFunctionScalingConfig": _SCALING,
    "PutResourcePolicy": _POLICY,
    "ResumeDurableExecution": _DURABLE,
    "SendDurableExecutionCallbackFailure": _DURABLE,
    "SendDurableExecutionCallbackHeartbeat": _DURABLE,
    "SendDurableExecutionCallbackSuccess": _DURABLE,
    "StopDurableExecution": _DURABLE,
    "UpdateCapacityProvider": _CAPACITY,
    "UpdateCodeSigningConfig": _SIGNING,
}
"""Operations that kflow has nothing of, and why: a call is answered with a refusal that says so."""

MISSING: Final = {
    "AddLayerVersionPermission": "kept and shown; nobody is refused by it",
    "AddPermission": "kept and shown; nobody is refused by it",
    "CreateFunction": "zips of Python, Node.js and `provided`; no file systems; VPC and SnapStart are kept and shown",
    "CreateFunctionUrlConfig": "kept and shown; nobody serves the URL",
    "DeleteFunctionCodeSigningConfig": "no function has one",
    "GetFunctionCodeSigningConfig": "no function has one",
    "InvokeWithResponseStream": "the response comes when it is whole",
    "ListCodeSigningConfigs": "the list is empty",
    "PutFunctionRecursionConfig": "kept and shown; loops are not looked for",
    "PutProvisionedConcurrencyConfig": "kept and shown; environments start when they are needed",
    "PutRuntimeManagementConfig": "kept and shown; the interpreter is this machine's",
    "UpdateFunctionConfiguration": "as `CreateFunction`",
    "UpdateFunctionUrlConfig": "kept and shown; nobody serves the URL",
}
"""What is missing of an operation; what is not here is complete."""

TESTS: Final = {
    "AddLayerVersionPermission": ("who_may_use_a_version_is_kept",),
    "AddPermission": ("permissions_are_statements_of_the_policy",),
    "CreateAlias": ("an_alias_names_a_version_and_moves", "what_is_wrong_with_an_alias_is_said_in_aws_words"),
    "CreateEventSourceMapping": (
        "records_reach_a_decorated_handler_by_a_mapping_that_a_client_made",
        "changes_are_accepted_with_202_and_times_are_seconds",
    ),
    "CreateFunction": (
        "a_function_is_created_waited_for_and_its_code_fetched",
        "a_second_function_of_the_name_is_refused_also_while_the_first_is_being_made",
        "what_was_acknowledged_is_there_after_kill_nine",
    ),
    "CreateFunctionUrlConfig": ("a_url_is_kept_and_shown_and_people_are_told_that_nobody_serves_it",),
    "DeleteAlias": ("an_alias_names_a_version_and_moves",),
    "DeleteEventSourceMapping": (
        "a_deleted_mapping_delivers_nothing_and_a_new_one_begins_at_its_starting_position",
        "a_uuid_that_names_nothing_is_refused",
    ),
    "DeleteFunction": (
        "a_function_is_deleted_with_its_versions_and_aliases",
        "what_is_not_there_is_not_found_with_its_arn",
    ),
    "DeleteFunctionCodeSigningConfig": ("no_function_has_a_signature_config",),
    "DeleteFunctionConcurrency": ("reserved_concurrency_holds_and_outlives_the_runtime",),
    "DeleteFunctionEventInvokeConfig": ("how_events_are_retried_is_replaced_by_put_and_merged_by_update",),
    "DeleteFunctionUrlConfig": ("a_url_is_kept_and_shown_and_people_are_told_that_nobody_serves_it",),
    "DeleteLayerVersion": ("a_deleted_version_is_gone_and_its_number_too",),
    "DeleteProvisionedConcurrencyConfig": ("provisioned_concurrency_is_kept_and_becomes_ready",),
    "GetAccountSettings": ("the_account_says_what_it_uses",),
    "GetAlias": ("what_is_wrong_with_an_alias_is_said_in_aws_words",),
    "GetEventSourceMapping": ("what_became_of_the_last_batch_is_said",),
    "GetFunction": ("a_function_is_created_waited_for_and_its_code_fetched",),
    "GetFunctionCodeSigningConfig": ("no_function_has_a_signature_config",),
    "GetFunctionConcurrency": ("reserved_concurrency_holds_and_outlives_the_runtime",),
    "GetFunctionConfiguration": ("a_function_is_answered_as_aws_does_and_is_pending_first",),
    "GetFunctionEventInvokeConfig": ("how_events_are_retried_is_replaced_by_put_and_merged_by_update",),
    "GetFunctionRecursionConfig": ("loops_are_terminated_unless_allowed",),
    "GetFunctionUrlConfig": ("a_url_is_kept_and_shown_and_people_are_told_that_nobody_serves_it",),
    "GetLayerVersion": ("a_version_is_published_and_found_by_number_and_by_arn",),
    "GetLayerVersionByArn": ("a_version_is_published_and_found_by_number_and_by_arn",),
    "GetLayerVersionPolicy": ("who_may_use_a_version_is_kept",),
    "GetPolicy": ("permissions_are_statements_of_a_policy",),
    "GetProvisionedConcurrencyConfig": ("provisioned_concurrency_is_kept_and_becomes_ready",),
    "GetRuntimeManagementConfig": ("when_a_runtime_is_updated_is_kept",),
    "Invoke": (
        "a_decorated_handler_is_invoked_like_any_function",
        "an_exit_and_a_timeout_are_told_as_lambda_tells_them",
        "an_event_that_fails_is_run_three_times_with_one_request_id_and_then_goes_where_it_is_to_go",
    ),
    "InvokeAsync": ("an_event_is_taken_in_and_run",),
    "InvokeWithResponseStream": ("a_response_may_come_as_a_stream",),
    "ListAliases": ("aliases_are_listed_by_name_and_by_version",),
    "ListCodeSigningConfigs": ("no_function_has_a_signature_config",),
    "ListEventSourceMappings": ("the_trigger_of_a_decorated_handler_is_listed_and_switched",),
    "ListFunctionEventInvokeConfigs": ("how_events_are_retried_is_replaced_by_put_and_merged_by_update",),
    "ListFunctionUrlConfigs": ("a_url_is_kept_and_shown_and_people_are_told_that_nobody_serves_it",),
    "ListFunctions": ("functions_are_listed_in_pages_without_states",),
    "ListLayerVersions": ("layers_are_listed_with_their_newest_version_that_suits",),
    "ListLayers": ("layers_are_listed_with_their_newest_version_that_suits",),
    "ListProvisionedConcurrencyConfigs": ("provisioned_concurrency_is_kept_and_becomes_ready",),
    "ListTags": ("tags_are_put_and_removed",),
    "ListVersionsByFunction": ("versions_are_listed_from_the_oldest_in_pages",),
    "PublishLayerVersion": ("everything_is_there_after_a_restart_and_nothing_after_a_reset",),
    "PublishVersion": (
        "who_publishes_other_code_than_they_think_is_refused",
        "numbers_are_never_used_again_by_a_function_of_the_same_name",
    ),
    "PutFunctionConcurrency": (
        "reserved_concurrency_holds_over_all_shards_and_0_stops_everything",
        "a_function_runs_no_more_often_at_once_than_is_reserved_for_it",
    ),
    "PutFunctionEventInvokeConfig": (
        "a_success_is_told_too_and_retries_are_as_configured",
        "an_event_may_go_on_to_another_function",
    ),
    "PutFunctionRecursionConfig": ("loops_are_terminated_unless_allowed",),
    "PutProvisionedConcurrencyConfig": ("what_is_wrong_with_provisioned_concurrency_is_said_in_aws_words",),
    "PutRuntimeManagementConfig": ("when_a_runtime_is_updated_is_kept",),
    "RemoveLayerVersionPermission": ("who_may_use_a_version_is_kept",),
    "RemovePermission": ("what_is_wrong_with_permissions_is_said_in_aws_words",),
    "TagResource": ("tags_are_put_and_removed",),
    "UntagResource": ("tags_are_put_and_removed",),
    "UpdateAlias": ("an_alias_names_a_version_and_moves", "weights_send_a_part_elsewhere"),
    "UpdateEventSourceMapping": (
        "disabled_means_that_nothing_runs_and_enabled_goes_on_after_the_last_settled_record",
        "while_it_changes_it_is_in_use",
    ),
    "UpdateFunctionCode": (
        "new_code_runs_from_then_on_and_the_old_one_goes_when_nothing_can_run_it_any_more",
        "a_dry_run_changes_nothing",
    ),
    "UpdateFunctionConfiguration": ("configuration_is_changed_where_something_is_given",),
    "UpdateFunctionEventInvokeConfig": ("how_events_are_retried_is_replaced_by_put_and_merged_by_update",),
    "UpdateFunctionUrlConfig": ("a_url_is_kept_and_shown_and_people_are_told_that_nobody_serves_it",),
}
"""The tests that show an operation best."""

PAGE: Final = Page(
    service="lambda", performer=Lambda, module="tests.lambda_page", missing=MISSING, absent=ABSENT, tests=TESTS
)

_TITLES: Final = {
    "age": "Age of records",
    "batching": "Batches and their windows",
    "bisect": "Bisection",
    "drop": "Dropped records",
    "filters": "Filters",
    "lanes": "Parallelization factor",
    "pairs": "Options together",
    "partial": "Partial batch responses",
    "retries": "Function errors and retries",
    "windows": "Tumbling windows",
}


_HEAD: Final = "| scenario | how it is known | engine | handlers | API |\n|---|---|---|---|---|\n"


def scenarios() -> str:
    """What happens to records, scenario by scenario, and through which doors each is run."""
    parts = []
    for path in form.files():
        parts.append(f"\n### {_TITLES[path.stem]}\n\n{_HEAD}")
        for each in form.load(path):
            handlers = f"no: {each.engine_only}" if each.engine_only else "yes"
            api = f"no: {each.engine_only or each.no_api}" if each.engine_only or each.no_api else "yes"
            parts.append(f"| {_cell(each.name)} | {_cell(each.source)} | yes | {_cell(handlers)} | {_cell(api)} |\n")
    return "".join(parts).lstrip("\n") + "\n"


def made() -> str:
    """The page with both tables as they should be."""
    return replaced(PAGE.made(), "scenarios", scenarios())


class Open(NamedTuple):
    """What nobody could look up.

    Attributes:
        point: what.
        tests: names of the tests that hold what was chosen.
        scenarios: likewise.
    """

    point: str
    tests: list[str]
    scenarios: list[str]


def named(text: str) -> list[str]:
    """The scenarios that a text names."""
    return re.findall(r"scenario \*([^*]+)\*", text)


def open_points() -> list[Open]:
    """The rows of the table of open points."""
    _, _, rest = PAGE.text.partition("| open | chosen | where it is |\n|---|---|---|\n")
    found = []
    for line in rest.partition("\n\n")[0].splitlines():
        _, point, _, where, _ = line.split("|")
        found.append(Open(point.strip(), re.findall(r"`(\w+)`", where), named(where)))
    return found


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.path.write_text(made(), encoding="utf-8")
