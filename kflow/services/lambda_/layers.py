"""Operations on layers. Source: documented: PublishLayerVersion; recorded: the texts, but those marked chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kflow.aws.calls import LATER, Answer, Call
from kflow.broker.objects import Objects
from kflow.errors import KflowError
from kflow.interfaces import Done
from kflow.lambda_.control import layers, policies, shown
from kflow.lambda_.control.facts import Code
from kflow.lambda_.control.layers import Layer, LayerVersion
from kflow.lambda_.control.sources import source
from kflow.lambda_.errors import ResourceNotFound
from kflow.services.answering import answering
from kflow.services.lambda_.parts import Base, page


class LayerOperations(Base):
    """Operations on layers."""

    def publish_layer_version(self, call: Call, given: Any) -> Answer:
        """Source: documented: PublishLayerVersion."""
        named = layers.parse(given.LayerName, call.context.place)
        read = source(given.Content, "PublishLayerVersion", lambda: Objects.of(self.host.folder))

        def added(code: Code | KflowError) -> None:
            if isinstance(code, KflowError):
                call.refuse(code)
                return

            def make(number: int) -> LayerVersion:
                return LayerVersion(
                    number=number,
                    code=code,
                    created_ms=self.host.now_ms(),
                    description=given.Description or "",
                    license=given.LicenseInfo or "",
                    runtimes=None if given.CompatibleRuntimes is None else tuple(given.CompatibleRuntimes),
                    architectures=(
                        None if given.CompatibleArchitectures is None else tuple(given.CompatibleArchitectures)
                    ),
                )

            def kept(layer: Layer | KflowError) -> None:
                if isinstance(layer, KflowError):
                    call.refuse(layer)
                else:
                    call.answer(self._whole_layer(call, layer, made))

            made = self.layers.publish(named.place, named.name, make, kept)
            self.layers.packages.drop([code])

        self.layers.packages.add(read, added)
        return LATER

    def get_layer_version(self, call: Call, given: Any) -> Answer:
        """Source: documented: GetLayerVersion."""
        layer, version = self._layer_version(call, given)
        return self._whole_layer(call, layer, version)

    def get_layer_version_by_arn(self, call: Call, given: Any) -> Answer:
        """Source: documented: GetLayerVersionByArn."""
        layer, version = self.layers.find(layers.parse(given.Arn, call.context.place))
        return self._whole_layer(call, layer, version)

    def list_layers(self, call: Call, given: Any) -> Answer:
        """Each with its newest version that suits. Source: documented: ListLayers."""
        found = []
        for layer in self.layers.of(call.context.place):
            suiting = [each for each in layer.newest_first if _suits(each, given)]
            if suiting:
                found.append((layer, suiting[0]))
        listed, marker = page(found, lambda row: row[0].facts.name, given)
        rows = [
            {
                "LayerName": layer.facts.name,
                "LayerArn": layer.arn,
                "LatestMatchingVersion": _shown(layer, version),
            }
            for layer, version in listed
        ]
        return {"Layers": rows, "NextMarker": marker}

    def list_layer_versions(self, call: Call, given: Any) -> Answer:
        """Newest first. Source: documented: ListLayerVersions."""
        layer = self.layers.get(layers.parse(given.LayerName, call.context.place))
        found = [] if layer is None else [each for each in layer.newest_first if _suits(each, given)]
        # Marks ascend, numbers descend.
        listed, marker = page(found, lambda each: f"{10**12 - each.number:013d}", given)
        rows = [] if layer is None else [_shown(layer, each) for each in listed]
        return {"LayerVersions": rows, "NextMarker": marker}

    def delete_layer_version(self, call: Call, given: Any) -> Answer:
        """One that is not there is deleted already. Source: documented: DeleteLayerVersion."""
        try:
            layer, version = self._layer_version(call, given)
        except ResourceNotFound:
            return None
        return self._keep_layer(call, None, lambda told: self.layers.delete(layer, version, told))

    # ------------------------------------------------------------------ who may use one

    def add_layer_version_permission(self, call: Call, given: Any) -> Answer:
        """Kept and shown: anybody may use any layer. Source: documented: AddLayerVersionPermission."""
        layer, version = self._layer_version(call, given)
        conditions = {"StringEquals": {"aws:PrincipalOrgID": given.OrganizationId}} if given.OrganizationId else {}
        text = policies.statement(given.StatementId, given.Action, given.Principal, layer.arn_of(version), conditions)
        after = policies.with_statement(version.policy, given.StatementId, text, given.RevisionId)
        changed = msgspec.structs.replace(version, policy=after)
        answer = {"Statement": text, "RevisionId": after.revision}
        return self._keep_layer(call, answer, lambda told: self.layers.replace(layer, changed, told))

    def get_layer_version_policy(self, call: Call, given: Any) -> Answer:
        """Source: documented: GetLayerVersionPolicy."""
        _, version = self._layer_version(call, given)
        if version.policy is None:
            raise ResourceNotFound("No policy is associated with the given resource.")
        return {"Policy": policies.shown(version.policy), "RevisionId": version.policy.revision}

    def remove_layer_version_permission(self, call: Call, given: Any) -> Answer:
        """Source: documented: RemoveLayerVersionPermission."""
        layer, version = self._layer_version(call, given)
        after = policies.without(version.policy, given.StatementId, given.RevisionId)
        changed = msgspec.structs.replace(version, policy=after)
        return self._keep_layer(call, None, lambda told: self.layers.replace(layer, changed, told))

    # ------------------------------------------------------------------ inside

    def _layer_version(self, call: Call, given: Any) -> tuple[Layer, LayerVersion]:
        named = layers.parse(given.LayerName, call.context.place)
        return self.layers.find(named._replace(version=given.VersionNumber))

    def _keep_layer(self, call: Call, output: dict[str, Any] | None, change: Callable[[Done], object]) -> Answer:
        change(answering(call, lambda _: output))
        return LATER

    def _whole_layer(self, call: Call, layer: Layer, version: LayerVersion) -> dict[str, Any]:
        content = {
            "Location": self.location(call, version.code.digest),
            "CodeSha256": version.code.sha256,
            "CodeSize": version.code.size,
        }
        return {"Content": content, "LayerArn": layer.arn, **_shown(layer, version)}


def _suits(version: LayerVersion, given: Any) -> bool:
    runtime, architecture = given.CompatibleRuntime, given.CompatibleArchitecture
    return (runtime is None or runtime in (version.runtimes or ())) and (
        architecture is None or architecture in (version.architectures or ())
    )


def _shown(layer: Layer, version: LayerVersion) -> dict[str, Any]:
    return {
        "LayerVersionArn": layer.arn_of(version),
        "Version": version.number,
        "Description": version.description,
        "CreatedDate": shown.time(version.created_ms),
        "CompatibleRuntimes": None if version.runtimes is None else list(version.runtimes),
        "CompatibleArchitectures": None if version.architectures is None else list(version.architectures),
        "LicenseInfo": version.license or None,
    }
