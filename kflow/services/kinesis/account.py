"""Settings of accounts."""

from __future__ import annotations

from typing import Any

from kflow.aws.calls import LATER, Answer, Call
from kflow.services.answering import answering
from kflow.services.kinesis.control import Control


class Account(Control):
    """Operations on the caller's account in its region."""

    def describe_account_settings(self, call: Call, given: Any) -> Answer:
        """Source: documented: DescribeAccountSettings."""
        del given
        self.admit(call, "DescribeAccountSettings")
        return self._settings(call)

    def update_account_settings(self, call: Call, given: Any) -> Answer:
        """Source: documented: UpdateAccountSettings."""
        self.admit(call, "UpdateAccountSettings")
        enabled = given.MinimumThroughputBillingCommitment.Status == "ENABLED"
        told = answering(call, lambda _: self._settings(call))
        self.accounts.set_commitment(call.context.place, enabled=enabled, done=told)
        return LATER

    def _settings(self, call: Call) -> dict[str, Any]:
        now_ms = self.host.now_ms()
        found = self.accounts.commitment(call.context.place)
        status = found.status(now_ms)
        described: dict[str, Any] = {"Status": status}
        if found.started_ms:
            described["StartedAt"] = found.started_ms
            if status == "DISABLED":
                described["EndedAt"] = found.ends_ms
            else:
                described["EarliestAllowedEndAt"] = found.earliest_end_ms
        return {"MinimumThroughputBillingCommitment": described}
