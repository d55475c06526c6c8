"""Synthetic people: appearance, bodies, clothes, cameras, ray-cast pictures and the words for them."""
