"""The studio: a page in which a person steers a generator, and the same operations as JSON over HTTP."""
