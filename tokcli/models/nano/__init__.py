"""The bundled model: Qwen2.5-VL's architecture in about three million weights, trained on rendered scenes alone.

``checkpoint/`` is an ordinary checkpoint folder; ``python -m tokcli.models.nano.train`` makes it again. It knows the
colour, shape, motion and number of shapes in ``tokcli.synthetic`` scenes, and says so when asked for anything else.
"""
