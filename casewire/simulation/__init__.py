"""A project in CommCare HQ, simulated: what happens in it, what HQ forwards, what the truth is.

`model` is how HQ keeps cases, `story` what people do, `render` the bodies, `history` all of it in
HQ's processing order with the truth, `delivery` the disorder in which it arrives.
"""
