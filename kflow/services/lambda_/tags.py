"""Operations on tags."""

from __future__ import annotations

import re
from typing import Any, Final

from kflow.aws.calls import LATER, Answer, Call
from kflow.lambda_.control import tags
from kflow.lambda_.control.function import Function
from kflow.lambda_.control.mappings import Entry
from kflow.lambda_.errors import InvalidParameterValue, ResourceNotFound
from kflow.services.answering import answering
from kflow.services.lambda_.parts import Base

_MAPPING: Final = re.compile(r"arn:aws[a-z-]*:lambda:([a-z0-9-]+):(\d{12}):event-source-mapping:([0-9a-fA-F-]{36})")
_QUALIFIED: Final = (
    "Tags on function aliases and versions are not supported. "
    "Please specify either a function name or an unqualified function ARN."
)


class Tags(Base):
    """Operations on tags, of functions and of event source mappings."""

    def tag_resource(self, call: Call, given: Any) -> Answer:
        """Source: documented: TagResource."""
        resource = self._tagged(call, given.Resource)
        return self._keep_tags(call, resource, tags.checked(_of(resource), given.Tags))

    def untag_resource(self, call: Call, given: Any) -> Answer:
        """Source: documented: UntagResource."""
        resource = self._tagged(call, given.Resource)
        return self._keep_tags(call, resource, tags.without(_of(resource), given.TagKeys))

    def list_tags(self, call: Call, given: Any) -> Answer:
        """Source: documented: ListTags."""
        return {"Tags": _of(self._tagged(call, given.Resource))}

    def _tagged(self, call: Call, text: str) -> Function | Entry:
        """What an ARN names.

        Raises:
            InvalidParameterValue: nothing that has tags.
            ResourceNotFound: it is not there.
        """
        if (match := _MAPPING.fullmatch(text)) is None:
            if ":function:" not in text:
                raise InvalidParameterValue(
                    f"{text} has no tags here: give the ARN of a function or of an event source mapping."  # chosen
                )
            return self.unqualified(call, text, _QUALIFIED)
        entry = self.mappings.find(match[3])
        if (entry.mapping.region, entry.mapping.account) != (match[1], match[2]):
            raise ResourceNotFound("The resource you requested does not exist.")
        return entry

    def _keep_tags(self, call: Call, resource: Function | Entry, after: dict[str, str]) -> Answer:
        if isinstance(resource, Function):
            return self.change(call, resource, lambda: None, tags=after)
        self.mappings.tag(resource, after, answering(call))
        return LATER


def _of(resource: Function | Entry) -> dict[str, str]:
    return resource.facts.tags if isinstance(resource, Function) else resource.mapping.tags
