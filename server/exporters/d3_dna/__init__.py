"""What D3-DNA users have files for: the logger's trace, the viewer's JSON, final sequences."""
