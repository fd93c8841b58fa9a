"""What PanGu-α is, and nothing about clusters: one file a noun of the paper's section 2."""
