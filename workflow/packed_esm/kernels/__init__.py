"""What stands between the matrix products of a block, in torch and as Triton kernels, and pooling.

Knows tensors and `cu_seqlens`, and no model and no file.
May import: outputs, torch.
"""
