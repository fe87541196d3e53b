"""Teacher outputs: look-up, storage, files of the release, online computation."""
