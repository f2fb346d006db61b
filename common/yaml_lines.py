"""On which line of a YAML file each setting stands."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from common.settings_problems import Path, key_of

_NAMES = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


class YamlLines:
    """Raises yaml.YAMLError for what is not YAML, for a name that is not text, and for one that stands twice."""

    def __init__(self, text: str) -> None:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        self._lines = dict(_walk(root, ())) if root is not None else {}

    def __getitem__(self, path: Path) -> int:
        """Of a setting, or of the innermost section around it that there is."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def by_key(self) -> dict[str, int]:
        """Of every setting by its name, as in ``train.languages[0]``."""
        return {key_of(path): line for path, line in self._lines.items()}


def _walk(node: yaml.Node, path: Path) -> Iterator[tuple[Path, int]]:
    if isinstance(node, yaml.MappingNode):
        seen = set[str]()
        for name, value in node.value:
            if name.tag not in _NAMES:  # as `no`, which is a language's code and YAML's word for false
                raise _error("the name of a setting must be text: put it in quotes", name)
            if name.value in seen:
                raise _error(f"`{name.value}` stands twice in this section", name)
            seen.add(name.value)
            yield (*path, name.value), name.start_mark.line + 1
            yield from _walk(value, (*path, name.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield (*path, number), value.start_mark.line + 1
            yield from _walk(value, (*path, number))


def _error(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
