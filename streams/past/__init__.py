"""What Casewire held of a case at a past moment, and its story (docs/design.md, Past moments).

`casewire.case-state` is compacted and forgets. `casewire.cases` and `casewire.case-changes` keep
every event for 30 days; the state at a moment is what the rules of contract §5 make of those
captured until then.

The rooms: `story` (pure: from events to states), `index` (which offsets are about a case, on local
disk), `follower` (keeps the index of each held partition up to date), `reads` (records by offset),
`answers` (puts them together).
"""
