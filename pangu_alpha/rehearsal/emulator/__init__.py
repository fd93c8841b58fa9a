"""All ranks' real graphs run numerically in one process, on MindSpore's CPU kernels.

A rank is a generator over its graph (`interpreter`), its operators run on CPU kernels (`kernels`).  What ranks send
each other passes through `communication`, which judges it as devices would; `cluster` runs the ranks side by side
until all are done or none can go on, and `deadlock` tells why.  `comparison` holds the result against one device.
"""
