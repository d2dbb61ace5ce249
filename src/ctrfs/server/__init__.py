"""The local Containers service: a faithful stand-in with real storage."""
