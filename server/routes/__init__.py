"""HTTP: each route asks the queries one thing and sends what they answer."""
