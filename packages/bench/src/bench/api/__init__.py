"""Everything that the command line does, as functions; `import bench` offers them by name.

They take a request or its fields as keyword arguments, raise exceptions, and return results that
hold polars tables. A module here imports what its functions always need: reading tables needs no
torch.
"""
