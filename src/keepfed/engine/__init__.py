"""The container engine, Docker's or Podman's: its containers, their processes and mounts, and the files inside."""
