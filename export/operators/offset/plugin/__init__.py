"""The fused kernel of the offset attention as a plugin of TensorRT: compiled ahead of time, part of the engine, no Python when it runs.

A plugin is one launch without memory of its own. So the class token's row has programs of its own in the launch (`FIRST` "own"); under
zero_logit every program has a whole head, since all need the sum of v first: for long sequences that leaves much of a GPU idle.
"""
