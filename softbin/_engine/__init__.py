"""What no user imports: problems, the searches, sums over groups, meshes, kernels."""
