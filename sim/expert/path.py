"""Shortest collision-free paths of the pusher's centre around the block to the contacts."""

from __future__ import annotations

import numpy as np
import shapely
from shapely.geometry.polygon import orient

from sim.geometry import PUSHER_RADIUS, T_SHAPE
from sim.planar import Contacts

_SLACK = 1e-4  # metres by which the forbidden region shrinks, so that paths along its border are allowed
_CORRIDOR = 0.003  # half width in metres of the straight approach to a contact


class BlockMap:
    """A visibility graph around the T, in the block's frame, so that it is built only once.

    The pusher's centre keeps `clearance` metres more than its radius away from the block (square corners), except on
    the straight way in from the approach point of a contact to the contact itself, and on the straight way out.
    """

    def __init__(self, contacts: Contacts, clearance: float) -> None:
        outline = orient(T_SHAPE.buffer(PUSHER_RADIUS + clearance, join_style="mitre"))
        self.clearance = clearance
        self.contacts = contacts
        self.nodes = np.array(outline.exterior.coords)[:-1]
        self.places = contacts.pusher()
        self.approaches = contacts.pusher(clearance)
        self.forbidden = outline.buffer(-_SLACK, join_style="mitre")
        self._border = outline.exterior
        shapely.prepare(self.forbidden)
        self._between = self._sight(self.nodes, self.nodes)
        self._last = self._sight(self.nodes, self.approaches)
        self._direct = self._sight(self.approaches, self.approaches)

    def routes(self, start: np.ndarray, window: shapely.Polygon) -> Routes:
        """Shortest ways from `start` (2,) to the contacts that do not leave the convex `window`; block's frame."""
        return Routes(self, start, window)

    def way_out(self, start: np.ndarray, window: shapely.Polygon) -> np.ndarray:
        """`start` (2,) itself, or the nearest point at which the clearance is kept, of the window if there is one."""
        if not shapely.contains_xy(self.forbidden, *start):
            return start
        border = self._border if window.contains(self._border) else self._border.intersection(window)
        nearest = shapely.shortest_line(self._border if border.is_empty else border, shapely.Point(start))
        return np.array(nearest.coords[0])

    def way_in(self, start: np.ndarray) -> np.ndarray:
        """(N,) whether `start` is already between the approach point and the contact (or pushing at it)."""
        offset = start - self.places
        normal = self.contacts.normals
        off = -(offset * normal).sum(-1)
        aside = np.abs(offset[:, 0] * normal[:, 1] - offset[:, 1] * normal[:, 0])
        return (aside < _CORRIDOR) & (off < self.clearance + _CORRIDOR) & (off > -_CORRIDOR)

    def _sight(self, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """(S, T) straight distances, inf where the block is in the way."""
        ends = np.stack(np.broadcast_arrays(sources[:, None], targets[None]), axis=2)
        blocked = shapely.intersects(self.forbidden, shapely.linestrings(ends))
        return np.where(blocked, np.inf, np.linalg.norm(ends[:, :, 1] - ends[:, :, 0], axis=-1))


class Routes:
    """Shortest ways from one place to every contact: `lengths` (N,) in metres, inf where there is none."""

    def __init__(self, block_map: BlockMap, start: np.ndarray, window: shapely.Polygon) -> None:
        self._map = block_map
        self._start = start
        self.inside = block_map.way_in(start)
        self._exit = block_map.way_out(start, window)
        closed = np.where(shapely.contains_xy(window, block_map.nodes), 0.0, np.inf)[:, None]
        remaining = block_map._last + closed  # Bellman-Ford: from each node to each approach
        self._following = np.full(remaining.shape, -1)
        for _ in range(len(remaining)):
            via = closed[:, None] + block_map._between[:, :, None] + remaining[None]
            shorter = via.min(axis=1) < remaining - 1e-12
            self._following = np.where(shorter, via.argmin(axis=1), self._following)
            remaining = np.where(shorter, via.min(axis=1), remaining)
        self._remaining = remaining
        direct = block_map._sight(self._exit[None], block_map.approaches)[0]
        around = block_map._sight(self._exit[None], block_map.nodes)[0][:, None] + remaining
        self._first = np.where(direct <= around.min(axis=0), -1, around.argmin(axis=0))
        out = np.linalg.norm(self._exit - start)
        lengths = out + np.minimum(direct, around.min(axis=0)) + block_map.clearance
        open_contacts = shapely.contains_xy(window, block_map.approaches)
        straight = np.linalg.norm(block_map.places - start, axis=-1)
        self.lengths = np.where(self.inside, straight, np.where(open_contacts, lengths, np.inf))

    def transits(self) -> np.ndarray:
        """(N, N) metres of the way out of one contact, around the block as it lies now, and into another."""
        block_map = self._map
        around = (block_map._last.T[:, :, None] + self._remaining[None]).min(axis=1)
        return np.minimum(block_map._direct, around) + 2 * block_map.clearance

    def path(self, contact: int) -> np.ndarray:
        """Waypoints (K, 2) in the block's frame, from the start to the pusher's place at the contact."""
        points = [self._start]
        if not self.inside[contact]:
            points.append(self._exit)
            node = int(self._first[contact])
            while node >= 0:
                points.append(self._map.nodes[node])
                node = int(self._following[node, contact])
            points.append(self._map.approaches[contact])
        return np.stack([*points, self._map.places[contact]])
