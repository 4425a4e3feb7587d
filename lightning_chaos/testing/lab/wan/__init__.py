"""A WAN between network namespaces of this machine: real kernels' TCP over a switch of our own."""
