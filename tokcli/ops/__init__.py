"""Tensor primitives that several methods share: no files, no models, no options."""
