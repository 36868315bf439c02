"""The tools' JSON schemas in a form that every host accepts: one plain `type` per node.

Owns what is removed from pydantic's schemas. Hosts' converters drop tools, or refuse to connect, for `anyOf`, lists of
types, null, `$defs` and `additionalProperties` (`docs/hosts.md`). An optional argument is one that is not in
`required`.
"""

from __future__ import annotations

from typing import Any

_LEFT_OUT = frozenset({"title", "$defs", "additionalProperties"})


def plain(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema with plain types, `$defs` inlined, and without parts that no caller needs."""
    definitions = schema.get("$defs", {})

    def walk(node: Any) -> Any:  # noqa: ANN401 - JSON
        if isinstance(node, list):
            return [walk(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return walk(definitions[node["$ref"].rsplit("/", 1)[1]] | {k: v for k, v in node.items() if k != "$ref"})
        if "anyOf" in node:  # X or null
            (option,) = (option for option in node["anyOf"] if option != {"type": "null"})
            return walk(option | {key: item for key, item in node.items() if key != "anyOf"})
        return {
            key: _properties(item) if key == "properties" else walk(item)
            for key, item in node.items()
            if kept(key, node)
        }

    def _properties(properties: dict[str, Any]) -> dict[str, Any]:
        return {name: walk(node) for name, node in properties.items()}

    def kept(key: str, node: dict[str, Any]) -> bool:
        if key == "default":
            return node[key] not in (None, False)
        return key not in _LEFT_OUT and not (key == "description" and "properties" in node)

    walked: dict[str, Any] = walk(schema)
    return walked
