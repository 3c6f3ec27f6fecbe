"""Topologies as text that people read and edit, YAML or JSON, and everything that can be wrong with it.

apiVersion: baton/v1
kind: Topology
nodes:
  - {name: a, group: rack0, gpus: 8, cpus: 64, memory: 512GiB, egress_bytes_per_s: 12.5e+9}
  - {name: b, group: rack1, gpus: 8}
links:          # from node to node; one from a node to itself is what its own instances have
  - {source: a, target: b, alpha_s: 1.0e-4, beta_bytes_per_s: 1.0e+9, residual: 0.02}
group_links:    # for all pairs of these groups' nodes that `links` does not name
  - {source: rack1, target: rack0, alpha_s: 1.0e-4, beta_bytes_per_s: 1.0e+9}
"""

import json
from collections.abc import Iterator
from math import isfinite
from typing import Any

import numpy as np

from cluster.spec.problem import Problem, SpecError, YamlPath
from cluster.spec.reading import Reading, as_number
from cluster.spec.yaml_source import YamlSource, read_yaml
from cluster.topology.topology import Node, Topology

MAX_ASYMMETRY = 100.0
"""One way may have so many times the rate of the other; beyond it is taken for a mistake in the units."""

OVER_ITS_NODE = 1.5
"""A link may be measured so many times faster than all flows of its node together: noise; more contradicts."""

_SHOWN = 8  # contradictions of a kind: those of a group are many
_KEYS = ("apiVersion", "kind", "nodes", "links", "group_links")
_NODE_KEYS = (
    "name",
    "group",
    "egress_bytes_per_s",
    "ingress_bytes_per_s",
    "gpus",
    "cpus",
    "memory",
    "gpu_memory",
    "gpu_links",
)
_LINK_KEYS = ("source", "target", "alpha_s", "beta_bytes_per_s", "residual")


def read_topology(text: str, name: str) -> Topology:
    """SpecError with all problems found, each with its field and, in YAML, its line. `name`: of the file."""
    source = _read_json(text, name) if text.lstrip().startswith("{") else read_yaml(text, name)
    reading = _Reading(source=source)
    topology = reading.topology()
    if reading.problems or topology is None:
        raise SpecError(name, reading.problems)
    return topology


class _Reading(Reading):
    def topology(self) -> Topology | None:
        data = self.source.data
        if not self.has_keys(data, (), _KEYS):
            return None
        self.check_kind(data, "Topology")
        nodes = list(self._nodes())
        if not nodes:
            self.wrong(("nodes",), "should name at least one node")
        if self.problems:
            return None
        return self._linked(nodes)

    def _linked(self, nodes: list[Node]) -> Topology:
        shape = (len(nodes), len(nodes))
        alpha_s, beta, residual = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
        places = {node.name: [at] for at, node in enumerate(nodes)}
        groups: dict[str, list[int]] = {}
        for at, node in enumerate(nodes):
            groups.setdefault(node.group, []).append(at)
        groups.pop("", None)
        # Links are written over what their groups have.
        for key, what, known in (("group_links", "group", groups), ("links", "node", places)):
            for _, link in self._links(key, what, known):
                rows, columns = known[link["source"]], known[link["target"]]
                for matrix, value in ((alpha_s, "alpha_s"), (beta, "beta_bytes_per_s"), (residual, "residual")):
                    if what == "node":
                        matrix[rows[0], columns[0]] = link[value]
                    else:  # says nothing of a node with itself
                        own = np.diag(matrix).copy()
                        matrix[np.ix_(rows, columns)] = link[value]
                        np.fill_diagonal(matrix, own)
        topology = Topology(nodes, alpha_s, beta, residual)
        if not self.problems:
            self._missing(topology)
            self._contradictions(topology)
        return topology

    def _nodes(self) -> Iterator[Node]:
        first: dict[str, int] = {}
        for index, entry in self._entries("nodes", _NODE_KEYS, ("name",)):
            path: YamlPath = ("nodes", index)
            name = self._text(entry, "name", path)
            if first.setdefault(name, index) != index:
                self.wrong((*path, "name"), f"is {name!r}, as is nodes[{first[name]}].name; names have to differ")
            num_gpus = int(self.number(entry, "gpus", path, whole=True) or 0)
            yield Node(
                name=name,
                group=self._text(entry, "group", path),
                egress_bytes_per_s=self.number(entry, "egress_bytes_per_s", path, positive=True),
                ingress_bytes_per_s=self.number(entry, "ingress_bytes_per_s", path, positive=True),
                num_gpus=num_gpus,
                num_cpus=self.number(entry, "cpus", path),
                memory_bytes=self.num_bytes(entry, "memory", path),
                gpu_memory_bytes=self.num_bytes(entry, "gpu_memory", path),
                gpu_links=self._gpu_links(entry, num_gpus, path),
            )

    def _links(self, key: str, what: str, known: dict[str, list[int]]) -> Iterator[tuple[int, dict[str, Any]]]:
        first: dict[tuple[str, str], int] = {}
        for index, entry in self._entries(key, _LINK_KEYS, ("source", "target", "alpha_s", "beta_bytes_per_s")):
            path: YamlPath = (key, index)
            before = len(self.problems)
            ends = self._text(entry, "source", path), self._text(entry, "target", path)
            for end, name in zip(("source", "target"), ends, strict=True):
                if name not in known and len(self.problems) == before:
                    self.wrong((*path, end), f"is {name!r}; there is no such {what} in nodes")
            if first.setdefault(ends, index) != index:
                other = self.source.data[key][first[ends]]
                same = all(other.get(field) == entry.get(field) for field in _LINK_KEYS)
                say = "is given twice" if same else "contradicts another entry"
                self.wrong(path, f"{say}: {ends[0]} -> {ends[1]} is {key}[{first[ends]}] already; keep one")
            link = {
                "source": ends[0],
                "target": ends[1],
                "alpha_s": self.number(entry, "alpha_s", path),
                "beta_bytes_per_s": self.number(entry, "beta_bytes_per_s", path, positive=True),
                "residual": self.number(entry, "residual", path) or 0.0,
            }
            if len(self.problems) == before:
                yield index, link

    def _entries(
        self, key: str, known: tuple[str, ...], needed: tuple[str, ...]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        entries = self.source.data.get(key, [])
        if not isinstance(entries, list):
            self.wrong((key,), "should be a list")
            return
        for index, entry in enumerate(entries):
            path: YamlPath = (key, index)
            if self.has_keys(entry, path, known, needed):
                yield index, entry

    def _missing(self, topology: Topology) -> None:
        if missing := topology.missing():
            (source, target), others = missing[0], len(missing) - 1
            more = f" ({others} more pairs are missing)" if others else ""
            message = f"say nothing of {source} -> {target}{more}; add an entry, or one for their groups to group_links"
            self.wrong(("links",), message)

    def _contradictions(self, topology: Topology) -> None:
        names = [node.name for node in topology.nodes]
        beta = topology.beta_bytes_per_s
        between = np.where(np.eye(len(names), dtype=bool), np.nan, beta)
        for row, column in np.argwhere(between > MAX_ASYMMETRY * between.T)[:_SHOWN]:
            self.wrong(
                self._place(topology.nodes[column], topology.nodes[row]),
                f"{names[column]} -> {names[row]} has {beta[column, row]:g} bytes/s, the way back "
                f"{beta[row, column]:g}: more than {MAX_ASYMMETRY:g} times as much; correct the wrong one",
            )
        for way, rates, axis in (
            ("egress", [node.egress_bytes_per_s for node in topology.nodes], 0),
            ("ingress", [node.ingress_bytes_per_s for node in topology.nodes], 1),
        ):
            limits = np.array([np.inf if rate is None else rate for rate in rates])
            over = between > OVER_ITS_NODE * (limits[:, None] if axis == 0 else limits[None, :])
            for pair in np.argwhere(over)[:_SHOWN]:
                row, column = (int(at) for at in pair)
                at = (row, column)[axis]
                self.wrong(
                    self._place(topology.nodes[row], topology.nodes[column]),
                    f"{names[row]} -> {names[column]} has {beta[row, column]:g} bytes/s, more than all that "
                    f"nodes[{at}].{way}_bytes_per_s of {names[at]} allows ({limits[at]:g}); correct one of them",
                )

    def _place(self, source: Node, target: Node) -> YamlPath:
        """Of the entry that says what lies between them."""
        for key, ends in (("links", (source.name, target.name)), ("group_links", (source.group, target.group))):
            for index, entry in enumerate(self.source.data.get(key, [])):
                if (entry["source"], entry["target"]) == ends:
                    return (key, index)
        return ("links",)

    def _gpu_links(self, entry: dict[str, Any], num_gpus: int, path: YamlPath) -> tuple[tuple[float, ...], ...]:
        rows = entry.get("gpu_links")
        if rows is None:
            return ()
        is_square = isinstance(rows, list) and len(rows) == num_gpus
        if not is_square or not all(isinstance(row, list) and len(row) == num_gpus for row in rows):
            self.wrong((*path, "gpu_links"), f"should be {num_gpus} rows of {num_gpus} rates, as there are gpus")
            return ()
        rates = tuple(tuple(as_number(rate) for rate in row) for row in rows)
        if any(rate is None or rate < 0 or not isfinite(rate) for row in rates for rate in row):
            self.wrong((*path, "gpu_links"), "should hold rates in bytes/s, none below 0")
            return ()
        return tuple(tuple(rate or 0.0 for rate in row) for row in rates)

    def _text(self, entry: dict[str, Any], key: str, path: YamlPath) -> str:
        given = entry.get(key, "")
        if not isinstance(given, str) or (not given and key in entry):
            self.wrong((*path, key), f"is {given!r}; should be a name (a number needs quotes)")
            return ""
        return given


def _read_json(text: str, name: str) -> YamlSource:
    """Much faster than as YAML, which JSON is; without the lines."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise SpecError(name, [Problem(path=(twice,), message="is given twice; keep one")])
        return entry

    try:
        return YamlSource(name=name, data=json.loads(text, object_pairs_hook=unique), lines={})
    except json.JSONDecodeError:
        return read_yaml(text, name)  # a mapping in YAML's braces, or a message that names the line
