"""From the POST to the row, beside what one writes by hand: `python -m benchmarks.end_to_end`."""
