"""Models into buckets, so that NIM_REPOSITORY_OVERRIDE finds them there, and the proof that they are right there."""
