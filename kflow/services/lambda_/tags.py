"""Operations on tags of functions."""

from __future__ import annotations

from typing import Any, Final

from kflow.aws.calls import Answer, Call
from kflow.lambda_.control import tags
from kflow.lambda_.control.registry import Function
from kflow.lambda_.errors import InvalidParameterValue
from kflow.services.lambda_.parts import Base

_QUALIFIED: Final = (
    "Tags on function aliases and versions are not supported. "
    "Please specify either a function name or an unqualified function ARN."
)


class Tags(Base):
    """Operations on tags."""

    def tag_resource(self, call: Call, given: Any) -> Answer:
        """Source: documented: TagResource."""
        function = self._tagged(call, given.Resource)
        return self.change(call, function, lambda: None, tags=tags.checked(function.facts.tags, given.Tags))

    def untag_resource(self, call: Call, given: Any) -> Answer:
        """Source: documented: UntagResource."""
        function = self._tagged(call, given.Resource)
        return self.change(call, function, lambda: None, tags=tags.without(function.facts.tags, given.TagKeys))

    def list_tags(self, call: Call, given: Any) -> Answer:
        """Source: documented: ListTags."""
        return {"Tags": self._tagged(call, given.Resource).facts.tags}

    def _tagged(self, call: Call, text: str) -> Function:
        if ":function:" not in text:
            raise InvalidParameterValue(f"{text} has no tags here: give the ARN of a function.")  # chosen
        return self.unqualified(call, text, _QUALIFIED)
