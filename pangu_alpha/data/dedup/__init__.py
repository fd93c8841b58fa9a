"""Duplicates across all sources: exact ones by hashes, near ones by MinHash, bands, and a check of every candidate.

`hashes`: one number a document, one a long paragraph; `minhash`: signatures of a batch; `bands`: candidate pairs;
`jaccard`: the exact measure of a pair; `clusters`: which document of a cluster stays.
"""
