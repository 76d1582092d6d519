"""What the demo shows. ``cast`` is what all scenes share; every scene measures what it shows, and makes its words of that."""
