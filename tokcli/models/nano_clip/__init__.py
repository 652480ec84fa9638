"""The bundled sibling: LLaVA's architecture in about a million weights, for methods that need [CLS] or 1-D positions.

``checkpoint/`` is an ordinary checkpoint folder; ``python -m tokcli.models.nano_clip.train`` makes it again from the
same scenes and with the same vocabulary as ``tokcli.models.nano``.
"""
