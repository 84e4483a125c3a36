"""Operations between the matrix products of a block, in torch and as Triton kernels, and pooling.

It knows tensors and `cu_seqlens`, but no model and no file.
May import: outputs, torch.
"""
