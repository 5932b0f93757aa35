"""A grid that can be pressed: by mouse, and by keyboard (arrows move, Home and End go to the ends of a row, Enter chooses).

A Streamlit component with its markup, style and script inline: no build step, nothing fetched. Words are only ever set as text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

CSS = """
.scroll { overflow-x: auto; font-family: var(--st-font); color: var(--st-text-color); padding: 2px; }
p { margin: 0 0 6px; font-size: 0.875rem; font-weight: 600; }
table { border-collapse: separate; border-spacing: 2px; }
th { font-weight: 400; font-size: 0.75rem; white-space: nowrap; padding: 0 6px; text-align: right; }
thead th { text-align: left; vertical-align: bottom; padding: 2px 3px; }
thead.tall th span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 7rem; overflow: hidden; }
td { min-width: 34px; height: 26px; padding: 0 3px; text-align: center; font-size: 0.75rem; cursor: pointer; white-space: nowrap;
     border: 1px solid var(--st-border-color); border-radius: 3px; font-variant-numeric: tabular-nums; }
td.below { border-style: dashed; border-color: currentColor; }
td.picture { padding: 2px; cursor: pointer; }
td img { display: block; width: var(--side); height: var(--side); image-rendering: pixelated; background: #fff; }
td[aria-selected=true] { outline: 3px solid var(--st-primary-color); outline-offset: 0; font-weight: 700; }
td:focus-visible { outline: 3px solid var(--st-text-color); outline-offset: 1px; }
.legend { display: flex; gap: 8px; align-items: center; font-size: 0.75rem; margin-top: 6px; }
.ramp { width: 120px; height: 10px; border: 1px solid var(--st-border-color); }
@media (prefers-reduced-motion: no-preference) { td { transition: outline-color 80ms; } }
"""

JS = """
const mark = (box, chosen) => {
  for (const one of box.querySelectorAll('td[role="gridcell"]')) {
    const here = !!chosen && Number(one.dataset.r) === chosen[0] && Number(one.dataset.c) === chosen[1];
    one.setAttribute('aria-selected', String(here));
    if (chosen) one.setAttribute('tabindex', here ? '0' : '-1');
  }
};

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement;
  const before = root.querySelector('.scroll');
  const drawn = JSON.stringify([data.title, data.rows, data.columns, data.cells, data.side]);
  if (before && before.drawn === drawn) {  // only another cell is chosen: nothing is drawn again
    const at = root.activeElement;
    before.tell = setTriggerValue;
    mark(before, data.chosen);
    if (at && at.dataset && at.dataset.r !== undefined) {  // who walks the grid goes on from where they are
      before.querySelectorAll('td[tabindex="0"]').forEach((one) => one.setAttribute('tabindex', '-1'));
      at.setAttribute('tabindex', '0');
    }
    return;
  }
  const held = before && (root.activeElement || document.activeElement);
  const focused = before && held && before.contains(held) ? [held.dataset.r, held.dataset.c] : null;
  const scrolled = before ? before.scrollLeft : 0;
  if (before) before.remove();
  const make = (tag, text, attributes) => {
    const one = document.createElement(tag);
    if (text) one.textContent = text;
    for (const [name, value] of Object.entries(attributes || {})) one.setAttribute(name, value);
    return one;
  };
  const box = make('div', '', { class: 'scroll' });
  box.drawn = drawn;
  box.tell = setTriggerValue;
  box.style.setProperty('--side', (data.side || 44) + 'px');
  const title = make('p', data.title);
  const table = make('table', '', { role: 'grid', 'aria-label': data.title + '. ' + data.help });
  const head = make('thead');
  const tall = data.columns.length > 6 && data.columns.some((name) => name.length > 5) && !data.pictures;
  if (tall) head.className = 'tall';
  const first = make('tr', '', { role: 'row' });
  first.append(make('td', '', { role: 'presentation', style: 'visibility:hidden;border:0;min-width:0' }));
  for (const name of data.columns) {
    const cell = make('th', '', { role: 'columnheader', scope: 'col' });
    cell.append(make('span', name));
    first.append(cell);
  }
  head.append(first);
  const body = make('tbody');
  const [r0, c0] = data.chosen || [0, 0];
  data.cells.forEach((line, r) => {
    const row = make('tr', '', { role: 'row' });
    row.append(make('th', data.rows[r], { role: 'rowheader', scope: 'row' }));
    line.forEach((cell, c) => {
      const here = r === r0 && c === c0;
      const one = make('td', cell.words, {
        role: 'gridcell', tabindex: here ? '0' : '-1', 'aria-label': cell.said, title: cell.said,
        'aria-selected': String(!!data.chosen && here), 'data-r': r, 'data-c': c,
      });
      if (cell.fill) { one.style.backgroundColor = cell.fill; one.style.color = cell.ink; }
      if (cell.below) one.className = 'below';
      if (cell.picture && cell.picture.startsWith('data:image/png;base64,')) {
        one.className = 'picture';
        const image = make('img', '', { alt: '' });
        image.src = cell.picture;
        one.append(image);
      }
      one.onclick = () => choose(one);
      row.append(one);
    });
    body.append(row);
  });
  table.append(head, body);
  const go = (r, c) => {
    const next = body.querySelector(`td[data-r="${r}"][data-c="${c}"]`);
    if (!next) return;
    body.querySelectorAll('td[tabindex="0"]').forEach((one) => one.setAttribute('tabindex', '-1'));
    next.setAttribute('tabindex', '0');
    next.focus();
  };
  const choose = (one) => {
    go(one.dataset.r, one.dataset.c);
    mark(box, [Number(one.dataset.r), Number(one.dataset.c)]);
    box.tell('chosen', [Number(one.dataset.r), Number(one.dataset.c)]);
  };
  table.onkeydown = (event) => {
    const at = event.target;
    if (!at.dataset || at.dataset.r === undefined) return;
    const r = Number(at.dataset.r), c = Number(at.dataset.c);
    const last = data.columns.length - 1;
    const moves = {
      ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], Home: [r, 0], End: [r, last],
    };
    if (event.key in moves) { event.preventDefault(); go(...moves[event.key]); }
    if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); choose(at); }
  };
  const legend = make('div', '', { class: 'legend', 'aria-hidden': 'true' });
  const ramp = make('span', '', { class: 'ramp' });
  ramp.style.background = 'linear-gradient(to right,' + data.ramp.join(',') + ')';
  legend.append(make('span', data.ends[0]), ramp, make('span', data.ends[1]), make('span', data.unit));
  box.append(title, table, legend);
  root.append(box);
  box.scrollLeft = scrolled;
  if (focused) {
    const again = body.querySelector(`td[data-r="${focused[0]}"][data-c="${focused[1]}"]`);
    if (again) { body.querySelectorAll('td[tabindex="0"]').forEach((one) => one.setAttribute('tabindex', '-1'));
      again.setAttribute('tabindex', '0'); again.focus({ preventScroll: true }); }
  }
}
"""
HELP = "Arrow keys move, Enter chooses."


def press(
    grid: Mapping[str, Any], key: str, chosen: tuple[int, int] | None, on_chosen: Callable[[int, int], None], *, side: int = 44
) -> None:
    """``grid`` (``core.charts.cells``) with the cell ``chosen`` marked; ``on_chosen(row, column)`` is told which was pressed, before the
    page runs again. ``side``: pixels of a picture."""

    def told() -> None:
        state = st.session_state.get(key)
        cell = state.get("chosen") if state is not None else None
        if isinstance(cell, list | tuple) and len(cell) == 2 and all(isinstance(i, int) for i in cell):
            row, column = cell
            if 0 <= row < len(grid["rows"]) and 0 <= column < len(grid["columns"]):
                on_chosen(row, column)

    pictures = any("picture" in cell for line in grid["cells"] for cell in line)
    data = {**grid, "chosen": list(chosen) if chosen is not None else None, "help": HELP, "side": side, "pictures": pictures}
    _mounted()(key=key, data=data, on_chosen_change=told)


def _mounted() -> Any:
    """The component, declared once a process and again where a test has thrown it away."""
    return component("assay_grid", css=CSS, js=JS)
