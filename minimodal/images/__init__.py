"""Building images: layer cache and one builder for each backend."""
