"""Two readings of AWS's model of SQS.

- `loose`: for JSON. Members are not required, and names are not checked against lists: SQS does both itself, in words
  of its own.
- `forms`: for the query protocol, which SQS has spoken since before there was JSON, and which the newest model does not
  know any more: what its lists and maps are called in forms and in XML.

Source: recorded: requests and answers of the query protocol.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from kflow.aws.shapes import Model

_NAMESPACE: Final = "http://queue.amazonaws.com/doc/2012-11-05/"
_LISTS: Final = {
    "AWSAccountIdList": "AWSAccountId",
    "ActionNameList": "ActionName",
    "AttributeNameList": "AttributeName",
    "MessageAttributeNameList": "MessageAttributeName",
    "MessageSystemAttributeList": "MessageSystemAttributeName",
    "MessageList": "Message",
    "QueueUrlList": "QueueUrl",
    "StringList": "StringListValue",
    "BinaryList": "BinaryListValue",
    "TagKeyList": "TagKey",
}
"""What an element is called; of lists of entries and results, as its shape."""
_MAPS: Final = {"TagMap": ("Key", "Value")}
_MAP: Final = ("Name", "Value")
_MEMBERS: Final = {
    "Attributes": "Attribute",
    "MessageAttributes": "MessageAttribute",
    "MessageSystemAttributes": "MessageSystemAttribute",
    "Tags": "Tag",
    "tags": "Tag",
}


def loose(model: Model) -> Model:
    """The model without what SQS checks itself."""
    digest: dict[str, Any] = copy.deepcopy(dict(model.digest))
    for shape in digest["shapes"].values():
        shape.pop("required", None)
        shape.pop("enum", None)
    return Model(model.service, digest)


def forms(model: Model) -> Model:
    """The model with the names of the query protocol."""
    digest: dict[str, Any] = copy.deepcopy(dict(model.digest))
    digest["metadata"] = {**digest["metadata"], "protocol": "query", "protocols": ["query"], "xmlNamespace": _NAMESPACE}
    for name, operation in digest["operations"].items():
        if "output" in operation:
            operation["output"]["resultWrapper"] = f"{name}Result"
    for name, shape in digest["shapes"].items():
        if shape["type"] == "list":
            shape["flattened"] = True
            shape["member"]["locationName"] = _LISTS.get(name, shape["member"]["shape"])
        elif shape["type"] == "map":
            shape["flattened"] = True
            shape["key"]["locationName"], shape["value"]["locationName"] = _MAPS.get(name, _MAP)
        for member, reference in shape.get("members", {}).items():
            if member in _MEMBERS:
                reference["locationName"] = _MEMBERS[member]
    return Model(model.service, digest)
