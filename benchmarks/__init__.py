"""What recording, reading and exporting cost, as ratios against what a user would pick instead."""
