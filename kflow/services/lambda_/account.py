"""Operations on the account, and what is asked of functions that kflow has little or nothing of."""

from __future__ import annotations

from typing import Any, Final

from kflow.aws.calls import Answer, Call
from kflow.lambda_.control.sources import ZIP_BYTES
from kflow.lambda_.control.unzip import UNPACKED_BYTES
from kflow.limits import CONCURRENT_EXECUTIONS
from kflow.services.lambda_.concurrency import Concurrency

CODE_BYTES: Final = 75 * 1024**3
"""Of all functions and layers of a region. Source: documented: Lambda quotas; not enforced."""


class Account(Concurrency):
    """Operations on the account."""

    def get_account_settings(self, call: Call, given: Any) -> Answer:
        """Source: documented: GetAccountSettings."""
        del given
        functions = [each for each in self.functions.of(call.context.place) if each.declared is None]
        layers = self.layers.of(call.context.place)
        size = sum(found.code.size for each in functions for found in each.facts.configurations)
        size += sum(version.code.size for each in layers for version in each.facts.versions.values())
        return {
            "AccountLimit": {
                "TotalCodeSize": CODE_BYTES,
                "CodeSizeUnzipped": UNPACKED_BYTES,
                "CodeSizeZipped": ZIP_BYTES,
                "ConcurrentExecutions": CONCURRENT_EXECUTIONS,
                "UnreservedConcurrentExecutions": CONCURRENT_EXECUTIONS - self.reserved(call),
            },
            "AccountUsage": {
                "TotalCodeSize": size,
                "FunctionCount": len(self.functions.of(call.context.place)),
            },
        }

    # ------------------------------------------------------------------ loops

    def put_function_recursion_config(self, call: Call, given: Any) -> Answer:
        """Kept and shown: loops are not looked for. Source: documented: PutFunctionRecursionConfig."""
        function = self.unqualified(call, given.FunctionName)
        wanted = given.RecursiveLoop
        return self.change(call, function, lambda: {"RecursiveLoop": wanted}, recursion=wanted)

    def get_function_recursion_config(self, call: Call, given: Any) -> Answer:
        """Source: documented: GetFunctionRecursionConfig."""
        return {"RecursiveLoop": self.unqualified(call, given.FunctionName).facts.recursion}

    # ------------------------------------------------------------------ signatures

    def get_function_code_signing_config(self, call: Call, given: Any) -> Answer:
        """No function has one. Source: documented: GetFunctionCodeSigningConfig."""
        return {"FunctionName": self.unqualified(call, given.FunctionName).name}

    def delete_function_code_signing_config(self, call: Call, given: Any) -> Answer:
        """There is none to delete."""
        self.unqualified(call, given.FunctionName)
        return None

    def list_code_signing_configs(self, call: Call, given: Any) -> Answer:
        """There are none."""
        del call, given
        return {"CodeSigningConfigs": []}
