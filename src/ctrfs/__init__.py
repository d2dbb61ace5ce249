"""ctrfs mounts the OpenAI Containers API as a file system."""
